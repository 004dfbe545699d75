"""Access control: the one place that decides whether a request is answered.

Each process asks its gate (`gate`) before anything else is done with a request: before a look-up, read repair, a lease,
or a relay to another process or instance. The decision depends on the route, the name in it, the caller's credential
and the facts, and never on what exists. So a repository that the caller may not see, and one that does not exist, are
answered alike, at the same cost. The process that has accepted the connection decides; what it relays carries its
admission (`admission`), and is not decided again.

The answers are those that clients understand (Docker's token protocol, RFC 6750): without a valid credential 401 with a
Bearer challenge, never a Basic one, though Basic is accepted; where only the token's scope is lacking, or the caller is
anonymous, 401 `insufficient_scope`, upon which clients fetch another token; else 403, which names the missing right.

While the cluster does not enforce access control, no credential is read and everything is answered as if this package
did not exist.

rules              what each route demands; a route without a rule is not answered
gate               the decision, from credential, token scope and facts, and the cache of decisions
admission          who sends a request that was let in, and what it may do, for handlers
audited            the requests in the audit log
presented          the credential that a request presents
challenges         the refusals, and the realm at which clients get tokens
token_endpoint     `/v2/token`, where clients get tokens
password_checks    slow hashes: few at once, shared, throttled; relayed to the primary by workers
identity_checks    ID tokens of identity providers: the binding that each proves; relayed to the primary by workers
issuer_keys        the keys of identity providers, fetched and cached
primary_tokens     tokens that a worker gets from its primary, to have it check something
fair_turns         turns at the slow hashes, in rotation over the networks of clients
verified           passwords that were verified, for all processes
sources            where a process has its view of the facts from
"""

"""Access control: who may do what with which repository.

Everything is allowed by grants and nothing is denied by them, so the order of grants never matters: a caller may do
what the union of the grants that match allows. A request is allowed by the scope of its token *and* by the facts as
they are now, so that a revocation counts at once. The facts are of one replicated document, whose rules say what a
revocation beats when both were made at once (observed remove with tombstones; cf. Matrix's state resolution, Zanzibar's
"new enemy"). Nothing here does I/O.

rights    actions, subjects, callers, and the view of the facts that a decision needs
patterns  patterns of repository names: what they match, and which is narrower
bindings  which ID tokens of an identity provider prove an account
facts     what the facts say, and their texts
history   which facts the author of a fact had seen
rules     which facts count, and which are void
policy    what is in force by the facts that count
changes   what may be said next: the facts of each command, and what refuses it
id_tokens reading and verifying ID tokens
tokens    sealing and opening tokens
scopes    the rights that clients ask for, and that tokens carry
passwords slow hashes of passwords
keys      robots' keys
"""

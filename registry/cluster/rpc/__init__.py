"""Authenticated requests between instances.

Invariant: a request or an answer is acted upon only if its MAC proves that a holder of the cluster key made it, in a
session with fresh nonces of both sides, and each request is accepted once.

messages        the types of requests and responses
keys            keys derived from the cluster key, one for each use
sessions        session tokens, and MACs of requests and answers
client          sending requests to members
upload_tokens   upload ids that name the instance that owns the upload
key_acceptance  which addresses accept the cluster key, and which refuse it
"""

"""Parsing what an operator writes. The settings themselves are in `registry.config`. Every error says what was wrong
and what was expected.

addresses      HOST:PORT, URLs of instances, host names
redis_address  addresses of Redis servers
environment    variables of the environment that look like settings and are none
policy         how many replicas of content are required, and at which sites
trusted_proxies who a request comes from, where it comes through proxies
tls_files      which files TLS is made of
policy_reach   which rules of a policy can never apply
"""

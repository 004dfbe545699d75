"""The API between instances: the answering side of `registry.cluster.rpc.client`.

context     the collaborators of both modules below
handlers    sessions and authentication, content and uploads
relayed_uploads  requests for uploads whose home is another process
procedures  what members can call: each answers from committed state and this disk alone
"""

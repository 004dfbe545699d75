"""The API between instances: the answering side of `registry.cluster.rpc.client`.

context    the collaborators of both modules below
handlers   who may ask, content and uploads
questions  questions and their answers, from committed state and this disk alone
"""

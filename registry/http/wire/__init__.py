"""HTTP/1.1 on the wire (RFC 9110, RFC 9112), with a bound on everything that a client can leave open.

protocol    uvicorn's protocol with bounds, and the way into the fast path
heads       what a parser leaves to check in a request's head
closing     ending a connection without harm to its last answer
tls_transport  ending a connection with TLS
client_certificate  the certificate by which a client has identified itself
large_body  bodies of pushes, received without a copy
request     reading requests: bodies in time, headers, numbers
exchange    one request and its answer, measured as they pass
sending     one bound on answers in memory while they are sent
fast_path   manifests, small blobs and pages of tags, answered without a task
process_relay  the way to the other processes of this instance
browsers    requests that a web page makes a browser send, refused
"""

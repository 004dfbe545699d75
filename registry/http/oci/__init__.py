"""The OCI distribution API (`/v2`).

context          the collaborators of the handlers, by resource
paths            the paths of the API, taken apart (specification, "Endpoints")
routes           which handler answers a path and a method
blobs            pulling, mounting and deleting blobs
uploads          pushing blobs, at whichever instance a request arrives
repeatable       an upload's body on its way to another instance, which may have to be sent again
manifests        pulling, pushing and deleting manifests and tags
tags             lists of tags and of repositories
referrers        manifests that refer to a manifest
conditions       conditional and range requests of content (RFC 9110, sections 13 and 14)
multipart        several ranges in one answer
answers          writing answers: errors, content, paged lists
read_only        what a worker answers from committed rows and files
"""

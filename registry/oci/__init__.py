"""The OCI model, without I/O (OCI distribution specification, OCI image specification).

Everything here is a pure function of its arguments. Input from clients is refused with a typed error; input that other
instances have accepted already is read leniently (`stored_manifest`).

names            the grammar of repositories, tags and digests
manifest         image manifests and indexes: what they refer to
stored_manifest  the same for manifests that are stored: which references garbage collection follows
json_objects     JSON objects whose keys mean the same to every reader
ranges           the Range header (RFC 9110, section 14)
"""

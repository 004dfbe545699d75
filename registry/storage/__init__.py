"""Content and uploads on disk.

Invariant: a row in the catalog names a file that is complete and synced; content is verified against its digest before
any byte of it leaves.

checks        hashing: the digest of the whole, and the BLAKE3 digest of each MiB
jobs          blocking disk work, off the event loop
ingest        receiving bytes into a file, hashed and written in the executor
store         where content files are, publishing them crash-safely, reading them
checked       verified reads
quarantine    corrupt files, moved out of the way and kept for repairs
space         the free space of the file system
content_mark  how many contents the catalog has had, kept beside the content
backup_note   the note of the last backup
leftovers     files without a row, left by a killed process
uploads       resumable uploads (OCI distribution specification, "Pushing blobs")
upload_homes  the process of an instance that receives an upload
upload_commits what an upload has the catalog record, by whichever process writes it
shared_usage  the use of the disk by all processes of an instance, in memory that they share
upload_session one upload in memory
upload_memory  the bound on the bytes of all uploads in memory
upload_hashes  hashing state, kept while files are closed, resumed in bounded steps
manifest_memory the bound on the bytes of manifests in memory
disk_budget    the bytes that content and uploads may take
upload_places  the bounded table of uploads, and which one is preempted when it is full
resent        detection of a stream that is sent again from its beginning
"""

"""Content and uploads on disk.

checks      hashing bytes as they come: the digest, and the BLAKE3 digest of each MiB
jobs        blocking disk work, off the event loop
ingest      receiving bytes into a file, hashing and writing in the executor
store       where content files are, publishing them crash-safely, reading them
checked     reading content of which every byte is checked first
quarantine  damaged files, moved out of the way
space       how much room the file system has
content_mark  how far the catalog had come, kept beside the content
leftovers   files without a row, which a killed process leaves behind
resent      streams that are sent again from their beginning
uploads     resumable uploads
upload_session one of them in memory
upload_memory one bound on what of all of them is in memory
upload_hashes their hashing state, kept while files are closed, taken up again in bounded steps
upload_places the bounded table of them, and which gives way when it is full
"""

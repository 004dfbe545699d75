"""The catalog: one SQLite database with the replicated documents and what they mean.

schema       tables, migrations, and what is checked when a database is opened
change_sink  what follows a commit, in its order
database     two connections and the grouping of concurrent writes into one durable commit
documents    documents: writing them, and taking in the updates of others
tries        the hash tries behind the state digests, cached
view         live facts: what documents mean, and the only thing reads touch
manifest_walk the walk over everything that a manifest refers to
replica      what other replicas ask of the documents
compactor    replacing a document's long log by a snapshot
repository   what a push, a delete or a mount changes
reassert     undoing deletes: asserting anew what an older copy says
incoming     taking in what other instances send
forks        healing a document that a writer used twice has split
winner       which of several facts about one key decides
queries      what pulls and lists read
understanding documents with critical facts that this version does not understand, and serving nothing of them
referrers    what refers to a manifest, newest first
wrong_sizes  facts that state another size than what is on this disk has
content      which content files are on this disk, and uploads that are under way
collection   content that no manifest names, and giving it up
untagged     untagged manifests, and their removal
sums         what manifests need and what the disk holds, summed up
members      the other instances, and how far this one has come with each
credential_uses  when credentials were last accepted here
access       the document of access control: the policy by its facts, and adding facts
membership   members that are gone for good, as facts
catalog      all of it, opened
"""

"""Documents that replicate, with no I/O, no clock and no randomness of their own.

Every function here takes time, ids and bytes as arguments and returns values; the registry (or a test, or a
simulation) does the rest. A newcomer reads the modules in this order:

    fact       what one replicated statement says, as one flat string
    errors     what can be wrong with bytes from elsewhere
    clock      the hybrid logical clock that orders concurrent pushes
    varint     the variable-length integers of the update format
    vector     state vectors: how far a replica has come, per writer
    delta      one update, encoded from facts and decoded under a strict structural check
    document   the pycrdt document itself: loading, diffs, snapshots
    change     one commit's change of a document, as it is told to others
    trie       the state digest: a canonical hash trie over facts
    audit      finding what two tries hold differently
    catchup    a replica catching up with a peer, step by step
    frame      one authenticated message on the bus
    header     the header fields of a frame, by which later versions say more
    revisions  how far a frame's sender was in other documents, as a header field
    gate       holding changes that arrive before what they depend on
"""

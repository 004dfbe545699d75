"""Transfer: content from other instances.

Invariant: bytes that do not match their digest are never kept, and an answer that contains them never ends cleanly.

locator       which members hold a content
distrust      holders that sent wrong bytes, left out for a while
transfer      one transfer from a holder, many readers
pass_through  content without room on this disk, on its way to one reader
chunk_digests digests of the MiBs of a content, as holders state them
range_schedule which holder sends which MiB
range_fetch   some MiBs of one content, from several holders at once
range_reader  ranges of content that is elsewhere, from those MiBs
whole_policy  when the whole content follows
blob_reader   content from this disk where it is right, else from a holder; corrupt content is repaired
scrubber      verifying all content in turn
"""

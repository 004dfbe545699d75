"""Transfer: content from other instances.

Invariant: bytes that do not match their digest are never kept, and an answer that contains them never ends cleanly.

locator       which members hold a content
transfer      one transfer from a holder, many readers
pass_through  content without room on this disk, on its way to one reader
blob_reader   content from this disk where it is right, else from a holder; corrupt content is repaired
scrubber      verifying all content in turn
"""

"""The errors of bytes and changes from outside.

CrdtError
  Malformed        the bytes do not have the form they must have; their sender is at fault
  Unauthentic      the bytes are not from a member of this cluster
  NotUnderstood    the bytes are from a later version, which marked them as critical: refuse them if not understood
  DocumentBroken   pycrdt could not take an update that passed every check
"""


class CrdtError(Exception):
    """The root of this package's errors."""


class Malformed(CrdtError):
    """Bytes from outside that do not have the form they must have."""


class Unauthentic(CrdtError):
    """A frame whose cluster or MAC is not ours."""


class NotUnderstood(CrdtError):
    """An authentic frame with a critical header field that this version does not know. It changes nothing."""


class DocumentBroken(CrdtError):
    """pycrdt refused or failed on an update. The document object must be dropped and loaded again."""

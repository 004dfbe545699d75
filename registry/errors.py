"""The errors of a request, each with the HTTP status and the code that the client receives.

Handlers raise them. `registry.http.oci.answers` renders them for clients, `registry.http.peer.handlers` for other
instances. The codes are among the fourteen of the OCI distribution specification ("Error codes").

    OciError
      BlobUnknown            404  BLOB_UNKNOWN
      ContentUnreachable     503  BLOB_UNKNOWN or MANIFEST_UNKNOWN
      BlobUploadInvalid      400  BLOB_UPLOAD_INVALID
        ChunkOutOfOrder      416
      UploadUnreachable      503  BLOB_UPLOAD_UNKNOWN
      BlobUploadUnknown      404  BLOB_UPLOAD_UNKNOWN
      DigestInvalid          400  DIGEST_INVALID
      ManifestBlobUnknown    404  MANIFEST_BLOB_UNKNOWN
      ManifestInvalid        400  MANIFEST_INVALID
        ManifestTooLarge     413
        TooManyTags          414
      ManifestUnknown        404  MANIFEST_UNKNOWN
      NameInvalid            400  NAME_INVALID
      NameUnknown            404  NAME_UNKNOWN
      RangeInvalid           416  SIZE_INVALID
      SizeInvalid            400  SIZE_INVALID
      TooManyUploads         429  TOOMANYREQUESTS
      TooManyManifests       429  TOOMANYREQUESTS
      TooManyAnswers         429  TOOMANYREQUESTS
      NothingHere            404  UNSUPPORTED
      Unsupported            400, 404, 405, 413, 415, 500  UNSUPPORTED
      Unauthorized           401  UNAUTHORIZED
      TooManyLogins          429  TOOMANYREQUESTS
      Denied                 403  DENIED
      StorageFailed          503  DENIED
        DiskFull             503
      DiskBudgetUsed         503  DENIED
      WriteConcernTimeout    503  DENIED
      Ending                 503  DENIED
      Leaving                503  DENIED
      NotCurrent             503  DENIED
      AccessUnknown          503  DENIED
      NeedsUpgrade           503  DENIED
      ProcessUnreachable     503  DENIED
      IssuerUnavailable      503  DENIED
"""

from collections.abc import Mapping
from typing import Any


class OciError(Exception):
    """A request that cannot be answered as asked."""

    status = 400
    code = "UNSUPPORTED"
    reason = ""
    """A code of its own, where the code of the specification is too general. Refused pushes are counted by it, and an
    answer has it in its `detail`."""
    retry_after_s: int | None = None
    """Seconds after which a new attempt of the client may succeed."""

    def __init__(self, message: str, detail: Any = None, breaks_off: bool = False) -> None:
        """`breaks_off` says that the body of the request was not read to its end. The connection is closed after the
        answer, since later bytes would be taken for that body."""
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.breaks_off = breaks_off
        self.headers: dict[str, str] = {}
        """Header fields that a handler adds to the answer."""

    @property
    def shown_detail(self) -> Any:
        """The detail of the answer: with the reason, where there is one and the detail is an object or nothing."""
        if not self.reason or not isinstance(self.detail, dict | None):
            return self.detail
        return {"reason": self.reason, **(self.detail or {})}

    @property
    def counted_as(self) -> str:
        """The reason, or the code in the same spelling. There are few of them, and they are stable."""
        return self.reason or self.code.lower().replace("_", "-")


class BlobUnknown(OciError):
    status = 404
    code = "BLOB_UNKNOWN"


class ContentUnreachable(OciError):
    """Content that exists, but whose holders cannot be reached now. The error says where it is and when to try
    again."""

    status = 503
    code = "BLOB_UNKNOWN"

    def __init__(self, message: str, detail: Any = None, retry_after_s: int = 5, code: str = code) -> None:
        super().__init__(message, detail)
        self.retry_after_s = retry_after_s
        self.code = code


class BlobUploadInvalid(OciError):
    code = "BLOB_UPLOAD_INVALID"


class ChunkOutOfOrder(BlobUploadInvalid):
    status = 416


class BlobUploadUnknown(OciError):
    status = 404
    code = "BLOB_UPLOAD_UNKNOWN"


class UploadUnreachable(OciError):
    """An upload with bytes whose owner does not answer now, and may come back."""

    status = 503
    code = "BLOB_UPLOAD_UNKNOWN"
    reason = "upload-unreachable"
    retry_after_s = 2


class DigestInvalid(OciError):
    code = "DIGEST_INVALID"


class ManifestBlobUnknown(OciError):
    status = 404
    code = "MANIFEST_BLOB_UNKNOWN"


class ManifestInvalid(OciError):
    code = "MANIFEST_INVALID"


class ManifestTooLarge(ManifestInvalid):
    status = 413


class TooManyTags(ManifestInvalid):
    status = 414


class TooManyUploads(OciError):
    """More uploads at once than this instance takes. They end, expire, or are preempted."""

    status = 429
    code = "TOOMANYREQUESTS"
    reason = "too-many-uploads"
    retry_after_s = 30


class TooManyManifests(OciError):
    """More bytes of manifests at once than this instance takes into memory. They are committed, or end."""

    status = 429
    code = "TOOMANYREQUESTS"
    reason = "too-many-manifests"
    retry_after_s = 2


class TooManyAnswers(OciError):
    """More bytes of answers at once than this instance keeps in memory. They are read, or cut off."""

    status = 429
    code = "TOOMANYREQUESTS"
    retry_after_s = 2


class ManifestUnknown(OciError):
    status = 404
    code = "MANIFEST_UNKNOWN"


class NameInvalid(OciError):
    code = "NAME_INVALID"


class NameUnknown(OciError):
    status = 404
    code = "NAME_UNKNOWN"


class RangeInvalid(OciError):
    """A range that lies outside of the content, which has `size` bytes."""

    status = 416
    code = "SIZE_INVALID"

    def __init__(self, message: str, size: int, detail: Any = None) -> None:
        super().__init__(message, detail)
        self.size = size


class SizeInvalid(OciError):
    code = "SIZE_INVALID"


class Unsupported(OciError):
    def __init__(
        self, message: str, status: int = 400, headers: Mapping[str, str] | None = None, detail: Any = None
    ) -> None:
        super().__init__(message, detail)
        self.status = status
        self.headers |= headers or {}


class NothingHere(OciError):
    """No resource has this path, at this listener. Its reason tells it from 404s that say more of a resource."""

    status = 404
    reason = "nothing-here"

    def __init__(self) -> None:
        super().__init__("there is nothing here")


class Unauthorized(OciError):
    """A request without a credential that counts, or with a token whose scope does not allow it."""

    status = 401
    code = "UNAUTHORIZED"


class TooManyLogins(OciError):
    """More passwords to check than this instance takes on, or too many wrong ones of an account from a network."""

    status = 429
    code = "TOOMANYREQUESTS"
    reason = "too-many-logins"
    retry_after_s: int = 2

    def __init__(self, retry_after_s: int = retry_after_s) -> None:
        super().__init__("too many logins at once; try again in a moment")
        self.retry_after_s = retry_after_s


class Denied(OciError):
    """A request that its sender may not make."""

    status = 403
    code = "DENIED"


class StorageFailed(OciError):
    """The disk did not take a write. Nothing was changed; but a commit that failed may be found by the next start."""

    status = 503
    code = "DENIED"
    reason = "storage-failed"
    retry_after_s = 30

    def __str__(self) -> str:
        cause = self.detail.get("cause") if isinstance(self.detail, dict) else None
        return f"{self.message}: {cause}" if cause else self.message


class DiskFull(StorageFailed):
    """There is no room on the disk."""

    reason = "disk-full"

    def __init__(self, detail: Any = None) -> None:
        super().__init__("this instance's disk is full; push to another one, or again in a while", detail)


class DiskBudgetUsed(OciError):
    """Content and uploads take all the space that the operator allows. The disk itself has not failed."""

    status = 503
    code = "DENIED"
    reason = "disk-budget"
    retry_after_s = 30

    def __init__(self, detail: Any = None) -> None:
        super().__init__("this instance's disk budget is used up; push to another one, or again in a while", detail)


class WriteConcernTimeout(OciError):
    """A push that is stored here, but has not reached as many holders as its policy requires. Pushing again waits
    again."""

    status = 503
    code = "DENIED"
    reason = "write-concern"
    retry_after_s = 2


class Leaving(OciError):
    """This instance is about to leave for good, and takes no more writes."""

    status = 503
    code = "DENIED"
    reason = "leaving"
    retry_after_s = 1


class NotCurrent(OciError):
    """A read at an instance that cannot tell whether it shows what its site shows. Its neighbours can answer."""

    status = 503
    code = "DENIED"
    retry_after_s = 1


class AccessUnknown(OciError):
    """A request at a new instance that has met no member yet, so that it cannot know who may do what."""

    status = 503
    code = "DENIED"
    reason = "access-unknown"
    retry_after_s = 2

    def __init__(self) -> None:
        super().__init__("this instance is new and has met no member of its cluster yet")


class ProcessUnreachable(OciError):
    """The process of this instance that has to take part does not answer: it has died, and has no successor yet."""

    status = 503
    code = "DENIED"
    retry_after_s = 2

    def __init__(self) -> None:
        super().__init__("a process of this instance is restarting; send the request again", breaks_off=True)


class IssuerUnavailable(OciError):
    """An ID token that cannot be judged: its issuer does not give its keys, and those that are cached are too old."""

    status = 503
    code = "DENIED"
    reason = "issuer-unavailable"

    def __init__(self, issuer: str, retry_after_s: int) -> None:
        super().__init__(f"the identity provider {issuer[:300]} does not give its keys; try again in a minute")
        self.retry_after_s = retry_after_s


class NeedsUpgrade(OciError):
    """A request that depends on a document with critical facts that this version does not understand."""

    status = 503
    code = "DENIED"
    reason = "needs-upgrade"
    retry_after_s = 30


class Ending(OciError):
    """This instance has been stopped, and its time for draining is over. What an upload has sent is kept."""

    status = 503
    code = "DENIED"
    retry_after_s = 2

    def __init__(self) -> None:
        super().__init__("this instance is ending; send the request again", breaks_off=True)


class CannotStart(Exception):
    """A reason not to start, in one line for the operator. `reason` is its code, where code depends on it."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason

"""The messages between instances, as types.

On the wire they are MessagePack maps; unknown fields are ignored, so that a newer version may add fields.
"""

from itertools import zip_longest
from typing import Annotated, Literal

import msgspec

from crdt.audit import Summary
from crdt.catchup import Changes, Diff, State
from crdt.errors import Malformed
from crdt.trie import DIGEST_SIZE, Prefix
from crdt.vector import decode_vector, encode_vector
from registry.capabilities import MAX_CAPABILITIES, MAX_NAME
from registry.cluster.rpc.sessions import NONCE_SIZE
from registry.oci.names import Digest, parse_digest

PROTOCOL = 1

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
InstanceId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
StateDigest = Annotated[bytes, msgspec.Meta(min_length=DIGEST_SIZE, max_length=DIGEST_SIZE)]
Nonce = Annotated[bytes, msgspec.Meta(min_length=NONCE_SIZE, max_length=NONCE_SIZE)]
Text = Annotated[str, msgspec.Meta(max_length=2000)]
AuditHeads = Annotated[
    dict[Annotated[str, msgspec.Meta(max_length=8)], tuple[Count, Annotated[str, msgspec.Meta(max_length=64)]]],
    msgspec.Meta(max_length=256),
]
Capability = Annotated[str, msgspec.Meta(pattern=rf"^[a-z][a-z0-9-]{{0,{MAX_NAME - 1}}}\Z")]
Capabilities = Annotated[list[Capability], msgspec.Meta(max_length=MAX_CAPABILITIES)]
"""See `abilities`; in order."""


class Heartbeat(msgspec.Struct, omit_defaults=True):
    """The state of an instance, which it publishes every two seconds."""

    site: Text
    advertise: Text
    advertise_site: Text
    version: Text
    incarnation: Count
    commit: Count
    """Its commit number."""
    published_seq: Count
    """Number of changes that it has published in this incarnation."""
    root: StateDigest
    """The state digest of all its documents."""
    applied: dict[str, tuple[Count, Count]]
    """For each instance of its site: (incarnation, the number up to which it has applied all changes of it)."""
    joining: bool = False
    """True while it takes in what the others have. It exchanges with them by itself, so they need not begin a round."""
    proxy: bool = False
    """True for a proxy instance, which holds no replicas."""
    protocol: Count = PROTOCOL
    name: Text = ""
    """The name that its operator gave it."""
    policy: Text = ""
    """The digest of its policy, see `policy.Policy`."""
    now_ms: Count = 0
    """Its wall clock when it made this heartbeat."""
    disk: tuple[Count, Count] = (0, 0)
    """Free and total bytes of its data directory's file system, a short while ago."""
    capabilities: Capabilities = []
    access: Text = ""
    """The state digest of its facts of access control, in hex; empty without any."""
    audit: AuditHeads = {}
    """For each process of it, the number and the hash of a recent last line of its audit log."""


class CommitAcknowledgement(msgspec.Struct):
    """Changes that the sender has committed."""

    instance: InstanceId
    """The instance that published the changes."""
    incarnation: Count
    sequences: list[Count]
    applied: Count
    """The number up to which all changes are committed."""


class FramesRequest(msgspec.Struct):
    """Frames of the sender's changes, which the bus has not brought. Answered by a `CommitAcknowledgement`."""

    frames: Annotated[list[bytes], msgspec.Meta(max_length=1000)]


class LeaseRequest(msgspec.Struct):
    """Asks for a read lease: the sender, of the same site, is to answer reads for a moment."""

    incarnation: Count
    """The sender's incarnation."""
    applied: tuple[Count, Count]
    """An incarnation of the receiver, and the number up to which every change of it is committed at the sender."""


class LeaseResponse(msgspec.Struct):
    sequence: Count
    heartbeat: Heartbeat
    """Its number of changes is what the lease's holder has to have committed before it answers a read."""
    granted: bool
    site_members: list[Text] = []
    """Addresses of the living members of the site, as the answerer knows them: the asker may have missed a newcomer."""


class Handshake(msgspec.Struct):
    """Two instances that do not hear each other on the bus introduce themselves."""

    instance: InstanceId
    sequence: Count
    heartbeat: Heartbeat
    members: list[Text]
    """Addresses of other instances, as far as they are known."""
    known_incarnation: Count = 0
    """The latest incarnation of the receiver that the sender knows of."""


class ChangesRequest(msgspec.Struct):
    since: Count


class ChangesResponse(msgspec.Struct):
    names: list[str]
    commit: Count
    more: bool

    def read(self) -> Changes:
        return Changes(self.names, self.commit, self.more)


class SummariesRequest(msgspec.Struct):
    places: list[tuple[str, Count]]
    """Bits, as hexadecimal digits, and depth."""

    @classmethod
    def of(cls, places: list[Prefix]) -> "SummariesRequest":
        return cls([(f"{place.bits:x}", place.depth) for place in places])

    def read(self) -> list[Prefix]:
        """Raises Malformed."""
        try:
            return [Prefix(int(bits, 16), depth) for bits, depth in self.places]
        except ValueError:
            raise Malformed("a place that is no number") from None


class SummariesResponse(msgspec.Struct):
    summaries: list[tuple[list[bytes], list[bytes]]]

    @classmethod
    def of(cls, summaries: list[Summary]) -> "SummariesResponse":
        return cls([(list(summary.digests), list(summary.entries)) for summary in summaries])

    def read(self) -> list[Summary]:
        return [Summary(tuple(digests), tuple(entries)) for digests, entries in self.summaries]


class NamesRequest(msgspec.Struct):
    keys: list[bytes]


class NamesResponse(msgspec.Struct):
    names: list[str]


class FingerprintsRequest(msgspec.Struct):
    names: list[str]


class FingerprintsResponse(msgspec.Struct):
    fingerprints: list[bytes]


class DiffsRequest(msgspec.Struct):
    documents: list[tuple[str, bytes]]
    """Names and our state vectors."""


class DiffResponse(msgspec.Struct):
    vector: bytes
    digest: bytes
    update: bytes
    """Empty when the asker lacks nothing."""

    def read(self) -> Diff:
        """Raises Malformed."""
        return Diff(State(decode_vector(self.vector), self.digest), self.update)

    @classmethod
    def of(cls, state: State, update: bytes) -> "DiffResponse":
        return cls(encode_vector(state.vector), state.digest, update)


class DiffsResponse(msgspec.Struct):
    diffs: list[DiffResponse]
    writers: dict[str, str]
    """Instances of the writers in them (hexadecimal), as far as they are known: hints at who has content."""
    revisions: bytes = b""
    """The extent of other documents there (`crdt.revisions`), at the time of the diffs or later."""


class UpdatesRequest(msgspec.Struct):
    """Updates and manifest bodies that the receiver may lack."""

    documents: list[tuple[str, bytes]]
    writers: dict[str, str]
    bodies: list[bytes]
    revisions: bytes = b""
    """The extent of other documents at the sender (`crdt.revisions`), at the time of the updates or later."""


class ReplicateManifestRequest(msgspec.Struct):
    """Asks the receiver to replicate all content of a manifest. The answer tells when it is durable there."""

    repository: Text
    digest: Text
    writer: Count = 0
    clock: Count = 0
    """A replica that has reached this clock of `writer` has seen the push. Both are 0 when unknown."""


class ReplicateManifestResponse(msgspec.Struct):
    held: bool
    missing: Count = 0
    """Number of contents of the manifest that are still on their way."""


class ReplicateBlobRequest(msgspec.Struct):
    """Asks the receiver to take a content over from the asker, which is leaving."""

    digest: Text
    size: Count


class ReplicateBlobResponse(msgspec.Struct):
    held: bool
    in_progress: bool = False
    reason: Text = ""
    """The reason why it is not taken; empty when it is taken or on its way."""


class ReferenceRequest(msgspec.Struct):
    """Asks which of these contents the receiver relies on, see `garbage_collection`."""

    digests: Annotated[list[Text], msgspec.Meta(max_length=1000)]
    incarnation: Count
    published_seq: Count
    """Number of changes that the asker has published in `incarnation`."""


class ReferenceResponse(msgspec.Struct):
    referenced: list[Text]
    problem: str
    """The reason why the answerer cannot tell; empty when it can."""
    incarnation: Count
    published_seq: Count
    """Number of changes that the answerer had published when it answered."""
    applied: Count
    """Number of the asker's changes that the answerer had applied."""


class ReleaseRequest(msgspec.Struct):
    """Releases these contents, where nothing has come to rely on them since the last request."""

    digests: Annotated[list[Text], msgspec.Meta(max_length=1000)]
    links: list[list[bytes]] = []
    """For each content, hashes of the links that the asker knew before its first request. Others prevent release."""

    def read(self) -> dict[Digest, frozenset[bytes]]:
        """The links by content. Raises DigestInvalid."""
        pairs = zip_longest(self.digests, self.links[: len(self.digests)], fillvalue=())
        return {parse_digest(str(digest)): frozenset(links) for digest, links in pairs}


class ReleaseResponse(msgspec.Struct):
    released: list[Text]


class BodiesRequest(msgspec.Struct):
    """Asks which of these manifests' bodies are on the answerer's disk."""

    digests: Annotated[list[Text], msgspec.Meta(max_length=1000)]


class BodiesResponse(msgspec.Struct):
    held: list[Text]


class ManifestsRequest(msgspec.Struct):
    """Asks for these manifests' bodies, as many of them as one answer holds."""

    digests: Annotated[list[Text], msgspec.Meta(max_length=1000)]


class ManifestsResponse(msgspec.Struct):
    bodies: list[bytes]
    """The bodies that are here and match their digests. The asker identifies them by their digests."""


class UpdatesResponse(msgspec.Struct):
    missing_dependencies: list[str]
    """Documents whose update could not be applied because something before it is missing."""


class FactsRequest(msgspec.Struct):
    name: str


class FactsResponse(msgspec.Struct):
    """All live facts of a document, with their identities; for documents that a forked writer has split."""

    vector: bytes
    digest: bytes
    facts: list[tuple[Count, Count, str]]


class LocateRequest(msgspec.Struct):
    digest: str
    quarantined: bool = False
    """True to ask for a quarantined copy, for its intact parts."""
    retain: bool = False
    """True when the asker is about to leave, and gives up its replica if the answerer has one."""


class LocateResponse(msgspec.Struct):
    """The size of a content on the answerer's disk, and whether the answerer stays in the cluster."""

    size: Count | None
    stays: bool = True


class ChunkDigestsRequest(msgspec.Struct):
    """Asks for the BLAKE3 digests of each MiB of a content on the answerer's disk, to check ranges of it by."""

    digest: str


class ChunkDigestsResponse(msgspec.Struct):
    size: Count | None
    """None where the content is not there."""
    chunk_digests: bytes = b""
    """32 bytes for each MiB, taken when the whole content was compared with its digest."""


class ReachRequest(msgspec.Struct):
    """Asks the answerer to reach the asker at the address that it advertises, see `reachability`."""

    site: Text
    advertise: Text
    advertise_site: Text


class ReachResponse(msgspec.Struct):
    instance: InstanceId
    """The answerer."""
    reached: bool
    problem: str = ""
    """The error that the attempt met; empty when it reached the asker."""
    via_site: bool = False
    """It tried `advertise_site`, so the verdict says nothing about `advertise`."""


class ReplicationRequest(msgspec.Struct):
    """Asks how far one tag, and the content that it refers to, have been replicated."""

    repository: str
    tag: str
    manifests: list[str]
    """Digests, and so below."""
    blobs: list[str]


class ReplicationResponse(msgspec.Struct):
    fact: tuple[str, Count, Count] | None
    """The tag's winning fact at the answerer: digest, time and writer."""
    missing: list[str]
    """The requested digests that are not on the answerer's disk."""


class ForwardedUploadRequest(msgspec.Struct):
    """A request for an upload that arrived at another instance than its owner; its body is streamed after it."""

    method: Literal["PATCH", "PUT", "GET", "DELETE"]
    repository: str
    upload: str
    digest: str | None
    range: tuple[Count, Count] | None
    """The first byte of the chunk and its length."""
    network: str = ""
    """The network of the client, whose uploads the owner bounds."""
    account: str = ""
    """The id of the client's account, to which the upload is bound."""


class ForwardedUploadResponse(msgspec.Struct):
    """The response to send to the client."""

    status: int
    headers: dict[str, str]
    content: bytes


class SessionRequest(msgspec.Struct):
    """The first half of a handshake."""

    instance: InstanceId
    nonce: Nonce
    version: Text = ""
    capabilities: Capabilities = []
    """The capabilities of the asker. A later version may refuse a session for want of one."""


class SessionResponse(msgspec.Struct):
    """The second half of a handshake."""

    instance: InstanceId
    token: bytes
    version: Text = ""
    capabilities: Capabilities = []

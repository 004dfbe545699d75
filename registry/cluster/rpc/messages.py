"""The messages between instances, as types.

On the wire they are MessagePack maps; unknown fields are ignored, so that a newer version may say more.
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
Capability = Annotated[str, msgspec.Meta(pattern=rf"^[a-z][a-z0-9-]{{0,{MAX_NAME - 1}}}\Z")]
Capabilities = Annotated[list[Capability], msgspec.Meta(max_length=MAX_CAPABILITIES)]
"""See `abilities`; in order."""


class Heartbeat(msgspec.Struct, omit_defaults=True):
    """What an instance says of itself, every two seconds."""

    site: Text
    advertise: Text
    advertise_site: Text
    version: Text
    start: Count
    commit: Count
    """Its commit number."""
    changes: Count
    """How many changes it has published since its start."""
    root: StateDigest
    """The state digest of all its documents."""
    applied: dict[str, tuple[Count, Count]]
    """For each instance of its site: (start, the number up to which it has applied every change of that start)."""
    joining: bool = False
    """It is still taking in what the others have, and exchanges with them of its own accord: they need not begin."""
    front_end: bool = False
    """It keeps no copies."""
    protocol: Count = PROTOCOL
    name: Text = ""
    """What its operator calls it."""
    policy: Text = ""
    """The digest of its policy, see `policy.Policy`."""
    now_ms: Count = 0
    """Its wall clock, as it said this."""
    disk: tuple[Count, Count] = (0, 0)
    """Free and total bytes of its data directory's file system, a short while ago."""
    capabilities: Capabilities = []


class CommitAcknowledgement(msgspec.Struct):
    """Changes that the sender has committed."""

    instance: InstanceId
    """Whose changes."""
    start: Count
    sequences: list[Count]
    applied: Count
    """All changes up to this one are committed."""


class FramesQuestion(msgspec.Struct):
    """Frames of the sender's changes, which the bus has not brought. Answered by a `CommitAcknowledgement`."""

    frames: Annotated[list[bytes], msgspec.Meta(max_length=1000)]


class LeaseQuestion(msgspec.Struct):
    """May the sender, of the same site, answer reads for a moment?"""

    start: Count
    """The sender's incarnation."""
    applied: tuple[Count, Count]
    """An incarnation of the receiver, and the number up to which every change of it is committed at the sender."""


class LeaseAnswer(msgspec.Struct):
    sequence: Count
    heartbeat: Heartbeat
    """Its number of changes is what the lease's holder has to have committed before it answers a read."""
    granted: bool
    site: list[Text] = []
    """Addresses of the living members of the site, as the answerer knows them: the asker may have missed a newcomer."""


class Handshake(msgspec.Struct):
    """Two instances that do not hear each other on the bus introduce themselves."""

    instance: InstanceId
    sequence: Count
    heartbeat: Heartbeat
    members: list[Text]
    """Addresses of other instances, as far as they are known."""
    known_start: Count = 0
    """The latest start of the receiver that the sender knows of."""


class ChangesQuestion(msgspec.Struct):
    since: Count


class ChangesAnswer(msgspec.Struct):
    names: list[str]
    commit: Count
    more: bool

    def read(self) -> Changes:
        return Changes(self.names, self.commit, self.more)


class SummariesQuestion(msgspec.Struct):
    places: list[tuple[str, Count]]
    """Bits, as hexadecimal digits, and depth."""

    @classmethod
    def of(cls, places: list[Prefix]) -> "SummariesQuestion":
        return cls([(f"{place.bits:x}", place.depth) for place in places])

    def read(self) -> list[Prefix]:
        """Raises Malformed."""
        try:
            return [Prefix(int(bits, 16), depth) for bits, depth in self.places]
        except ValueError:
            raise Malformed("a place that is no number") from None


class SummariesAnswer(msgspec.Struct):
    summaries: list[tuple[list[bytes], list[bytes]]]

    @classmethod
    def of(cls, summaries: list[Summary]) -> "SummariesAnswer":
        return cls([(list(summary.digests), list(summary.entries)) for summary in summaries])

    def read(self) -> list[Summary]:
        return [Summary(tuple(digests), tuple(entries)) for digests, entries in self.summaries]


class NamesQuestion(msgspec.Struct):
    keys: list[bytes]


class NamesAnswer(msgspec.Struct):
    names: list[str]


class FingerprintsQuestion(msgspec.Struct):
    names: list[str]


class FingerprintsAnswer(msgspec.Struct):
    fingerprints: list[bytes]


class DiffsQuestion(msgspec.Struct):
    documents: list[tuple[str, bytes]]
    """Names and our state vectors."""


class DiffAnswer(msgspec.Struct):
    vector: bytes
    digest: bytes
    update: bytes
    """Empty when the asker lacks nothing."""

    def read(self) -> Diff:
        """Raises Malformed."""
        return Diff(State(decode_vector(self.vector), self.digest), self.update)

    @classmethod
    def of(cls, state: State, update: bytes) -> "DiffAnswer":
        return cls(encode_vector(state.vector), state.digest, update)


class DiffsAnswer(msgspec.Struct):
    diffs: list[DiffAnswer]
    writers: dict[str, str]
    """Instances of the writers in them (hexadecimal), as far as they are known: hints at who has content."""


class Updates(msgspec.Struct):
    """Updates and manifest bodies that the receiver may lack."""

    documents: list[tuple[str, bytes]]
    writers: dict[str, str]
    bodies: list[bytes]


class ReplicateManifestQuestion(msgspec.Struct):
    """Take all content of a manifest, and say when it is durable here."""

    repository: Text
    digest: Text
    writer: Count = 0
    clock: Count = 0
    """Whoever has come so far with this writer has seen the push; zeros when it is not said."""


class ReplicateManifestAnswer(msgspec.Struct):
    held: bool
    lacking: Count = 0
    """How much of it is still on its way."""


class ReplicateBlobQuestion(msgspec.Struct):
    """Take a content over from the asker, who is leaving."""

    digest: Text
    size: Count


class ReplicateBlobAnswer(msgspec.Struct):
    held: bool
    under_way: bool = False
    reason: Text = ""
    """Why it is not taken, empty when it is or is on its way."""


class ReferenceQuestion(msgspec.Struct):
    """Which of these contents does the receiver rely on? See `collect`."""

    digests: Annotated[list[Text], msgspec.Meta(max_length=1000)]
    start: Count
    changes: Count
    """How many changes the asker has published since that start."""


class ReferenceAnswer(msgspec.Struct):
    relied: list[Text]
    unknown: str
    """Why it cannot say, empty when it can."""
    start: Count
    changes: Count
    """How many changes it had published when it answered."""
    applied: Count
    """How many of the asker's it had applied."""


class ReleaseQuestion(msgspec.Struct):
    """Give these contents up, where nothing has come to rely on them since the last question."""

    digests: Annotated[list[Text], msgspec.Meta(max_length=1000)]
    links: list[list[bytes]] = []
    """For each of them its links, as hashes, that the asker knew of before it asked anybody: there may be no others."""

    def read(self) -> dict[Digest, frozenset[bytes]]:
        """The links by content. Raises DigestInvalid."""
        pairs = zip_longest(self.digests, self.links[: len(self.digests)], fillvalue=())
        return {parse_digest(str(digest)): frozenset(links) for digest, links in pairs}


class ReleaseAnswer(msgspec.Struct):
    released: list[Text]


class BodiesQuestion(msgspec.Struct):
    """Which of these manifests' bodies are on the answerer's disk."""

    digests: Annotated[list[Text], msgspec.Meta(max_length=1000)]


class BodiesAnswer(msgspec.Struct):
    held: list[Text]


class ManifestsQuestion(msgspec.Struct):
    """Give these manifests' bodies, as many of them as one answer holds."""

    digests: Annotated[list[Text], msgspec.Meta(max_length=1000)]


class ManifestsAnswer(msgspec.Struct):
    bodies: list[bytes]
    """Those that are here and in order. The asker tells by their digests which they are."""


class UpdatesAnswer(msgspec.Struct):
    early: list[str]
    """Documents whose update could not be applied because something before it is missing."""


class FactsQuestion(msgspec.Struct):
    name: str


class FactsAnswer(msgspec.Struct):
    """All live facts of a document, with their identities; for documents that a forked writer has split."""

    vector: bytes
    digest: bytes
    facts: list[tuple[Count, Count, str]]


class HeldQuestion(msgspec.Struct):
    digest: str
    damaged: bool = False
    """A damaged copy that was put aside is wanted too, for what is right in it."""
    relying: bool = False
    """The asker is about to be gone for good, and gives up its own copy where the answerer has one."""


class HeldAnswer(msgspec.Struct):
    """The size of a content that is on the answerer's disk, and whether that one is there to stay."""

    size: Count | None
    stays: bool = True


class ReachQuestion(msgspec.Struct):
    """Does the answerer reach the asker at the address it advertises? See `reachability`."""

    site: Text
    advertise: Text
    advertise_site: Text


class ReachAnswer(msgspec.Struct):
    instance: InstanceId
    """The answerer."""
    reached: bool
    problem: str = ""
    """What it met instead."""
    through_site: bool = False
    """It tried `advertise_site`, so the verdict says nothing about `advertise`."""


class ReplicationQuestion(msgspec.Struct):
    """How far one tag and what it stands on have come."""

    repository: str
    tag: str
    manifests: list[str]
    """Digests, and so below."""
    blobs: list[str]


class ReplicationAnswer(msgspec.Struct):
    fact: tuple[str, Count, Count] | None
    """The tag's winning fact at the answerer: digest, time and writer."""
    lacking: list[str]
    """Of the digests asked about, those that are not on its disk."""


class UploadQuestion(msgspec.Struct):
    """A request for an upload that arrived at another instance than its owner; its body is streamed after it."""

    method: Literal["PATCH", "PUT", "GET", "DELETE"]
    repository: str
    upload: str
    digest: str | None
    span: tuple[Count, Count] | None
    """The first byte of the chunk and its length."""
    network: str = ""
    """Of the client: its uploads are bounded at the owner."""


class UploadAnswer(msgspec.Struct):
    """What the client is to be answered."""

    status: int
    headers: dict[str, str]
    content: bytes


class SessionQuestion(msgspec.Struct):
    """The first half of a handshake."""

    instance: InstanceId
    nonce: Nonce
    version: Text = ""
    capabilities: Capabilities = []
    """Of the asking side: a later version may refuse a session for want of one."""


class SessionAnswer(msgspec.Struct):
    """The second half of a handshake."""

    instance: InstanceId
    token: bytes
    version: Text = ""
    capabilities: Capabilities = []

"""Stand-ins for collaborators that an object requires and a test does not look at, and recorders of their calls.

What does nothing here is named for what is left out.
"""

from typing import Any

from registry.catalog.change_sink import Unpublished
from registry.catalog.database import WrongSize
from registry.cluster.membership.events import HeardListener
from registry.cluster.membership.members import Member
from registry.cluster.rpc.messages import Heartbeat
from registry.storage.content_mark import ContentMark


class WrongSizesIgnored:
    """Reports no wrong size."""

    def report(self, wrong: WrongSize) -> None:
        pass


class MarkedOnly(Unpublished):
    """Of the steps that follow a commit, only the mark beside the content."""

    def __init__(self, mark: ContentMark) -> None:
        self.content_added = mark.note_added  # type: ignore[method-assign]


class RecordedSteps:
    """Records the steps that follow a commit, in their order."""

    def __init__(self) -> None:
        self.steps: list[tuple[Any, ...]] = []

    def __getattr__(self, step: str) -> Any:
        return lambda *given: self.steps.append((step, *given))


class RecordedMembership:
    """Records the events of members, and passes heard heartbeats on (`MembershipListener`)."""

    def __init__(self, *listeners: HeardListener) -> None:
        self.listeners = list(listeners)
        self.began: list[bool] = []
        """For each heartbeat that counts, True where it began a life."""
        self.unproven_members: list[str] = []
        self.stale: list[str] = []
        """Instances that were heard under an earlier incarnation, or after their removal."""

    def heard(self, member: Member) -> None:
        self.began.append(member.is_new)
        for listener in self.listeners:
            listener.on_heard(member)

    def unproven(self, member: Member) -> None:
        self.unproven_members.append(member.instance)

    def stale_incarnation(self, member: Member, beat: Heartbeat) -> None:
        self.stale.append(member.instance)

    def removed_member_returned(self, instance: str, beat: Heartbeat) -> None:
        self.stale.append(instance)

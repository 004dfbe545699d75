import asyncio

from registry.cluster.membership.members import Members
from registry.cluster.replication.acknowledgements import DIRECT_PUSH_AFTER_S, Acknowledgements
from registry.cluster.replication.direct_push import RETRY_S, DirectPush
from registry.cluster.replication.recent_frames import RecentFrames
from tests.cluster.membership.test_members import OTHER, OWN, beat
from tests.support.stand_ins import RecordedMembership


class Counted(Acknowledgements):
    rounds = 0

    def unacknowledged(self):
        self.rounds += 1
        return super().unacknowledged()


async def test_a_removed_member_with_a_change_due_does_not_keep_the_loop_busy():
    """A member was removed while a change was due there: tasks that ended at once followed each other without a pause,
    and a simulated instance, whose clock stands still meanwhile, never came out of it."""
    members = Members(OWN, "eu", RecordedMembership())
    members.receive_heartbeat(OTHER, beat(), 1, on_bus=False)
    acknowledgements = Counted(members)
    pushing = DirectPush(None, members, acknowledgements, incarnation=None, recent_frames=RecentFrames())
    acknowledgements.published(commit=10, sequence=1)
    members.remove([OTHER])
    running = asyncio.create_task(pushing.run())
    await asyncio.sleep(DIRECT_PUSH_AFTER_S + 4 * RETRY_S)
    running.cancel()
    pushing.close()
    assert 2 <= acknowledgements.rounds <= 10

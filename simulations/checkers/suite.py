"""All checkers of a run, with the evidence that they share."""

from collections.abc import Callable

from simulations.access_states import AccessStates
from simulations.checkers.access import Access
from simulations.checkers.acknowledged import Acknowledged
from simulations.checkers.admissions import Admissions
from simulations.checkers.commits import Commits
from simulations.checkers.deletes import Deletes
from simulations.checkers.holders import Holders
from simulations.checkers.identities import Identities
from simulations.checkers.misses import Misses
from simulations.checkers.read_your_writes import ReadYourWrites
from simulations.checkers.readiness import Readiness
from simulations.checkers.rights_first import RightsFirst
from simulations.checkers.stamps import Stamps
from simulations.checkers.vectors import Vectors
from simulations.checkers.winners import Winners
from simulations.cluster import SimulatedCluster
from simulations.history import History
from simulations.lost_content import LostContent


class Checkers:
    """One attribute for each checker that remembers something; those that do not are functions of their modules.

    `asked_by` returns the instances that one has to ask before it collects, and `is_parted` whether a site may have
    been parted between two times.
    """

    def __init__(
        self,
        cluster: SimulatedCluster,
        copies: int,
        grace_s: float,
        asked_by: Callable[[str], list[str]],
        is_parted: Callable[[str, float, float], bool],
    ) -> None:
        self.history = History()
        self.access_states = AccessStates()
        self.access = Access(self.access_states, self.history)
        self.admissions = Admissions(self.access_states)
        self.rights_first = RightsFirst(self.access_states)
        self.lost = LostContent(cluster)
        self.commits = Commits(self.history, grace_s, asked_by)
        self.vectors = Vectors()
        self.acknowledged = Acknowledged(self.history, self.commits)
        self.deletes = Deletes(self.history, self.commits)
        self.misses = Misses(self.history, self.commits)
        self.readiness = Readiness(cluster, self.history, self.commits)
        self.stamps = Stamps()
        self.winners = Winners()
        self.read_your_writes = ReadYourWrites(is_parted)
        self.identities = Identities()
        self.holders = Holders(cluster, self.history, self.commits, self.lost, copies)

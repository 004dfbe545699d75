"""An acknowledged push has said in one operation everything it stands on, and ended what its instance showed of it.

So a delete of any of that which has not seen the push loses, and the tag points at this manifest alone.
"""

from collections.abc import Sequence

from simulations.checkers import Violation
from simulations.checkers.acknowledged import says
from simulations.history import CommittedOperation, Operation
from simulations.lost_content import LostContent
from simulations.workload.images import PARTS


def check_push(operation: Operation, written: Sequence[CommittedOperation]) -> None:
    """`written` is what instances of its site wrote in its repository since the request was sent."""
    own = [one for one in written if one.node.name == operation.node and says(operation, one)]
    reasons = [_lacks(operation.digest, one) or _leaves(one) for one in own]
    if reasons and all(reasons):
        raise Violation(f"{operation} {reasons[0]}")


def check_refusal(operation: Operation, operations: Sequence[Operation], lost: LostContent) -> None:
    """A push was refused because content is missing, of which its client had been told that it is there, or had just
    uploaded it. Only who deletes a blob takes it away."""
    same = [o for o in operations if o.repository == operation.repository]
    deleted = {o.digest for o in same if o.kind == "delete blob"}
    for blob in set(PARTS[operation.digest].blobs) - deleted - lost.digests:
        told = [o for o in same if o.node == operation.node and o.digest == blob and o.kind in ("head blob", "upload")]
        if blob in operation.said and told:
            raise Violation(f"{operation}, and no client has deleted it")


def _lacks(digest: str, one: CommittedOperation) -> str:
    """Return what an operation should have re-asserted. Of a child's blobs those that were live, if its body was there
    to tell which they are."""
    before = {fact.key for fact in one.commit.before.facts.values()}
    after = {fact.key for fact in one.commit.after.facts.values()}
    parts = PARTS[digest]
    wanted = {("m", digest), *(("m", child) for child in parts.children), *(("b", blob) for blob in parts.blobs)}
    for child in parts.children:
        if child not in one.commit.lacking:
            wanted |= {("b", blob) for blob in PARTS[child].blobs} & before & after
    missing = wanted - {fact.key for fact in one.said.values()}
    return f"did not say {min(missing)} again in its operation" if missing else ""


def _leaves(one: CommittedOperation) -> str:
    keys = {fact.key for fact in one.said.values()}
    shown = one.commit.before.facts.items()
    left = [fact for identity, fact in shown if fact.key in keys and identity in one.commit.after.facts]
    return f"left {left[0]}, which its instance showed" if left else ""

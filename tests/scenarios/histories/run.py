"""One run: the cluster, clients and faults together, then healing, then a last look at everything at every member."""

import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from simulations.write_order import WRITES
from tests.scenarios.histories.balancer import Balancer, is_ready_now
from tests.scenarios.histories.clients import ClientThread, Pool, Recorder
from tests.scenarios.histories.faults.target import FaultTarget
from tests.scenarios.histories.history import History, Operation
from tests.scenarios.histories.members import Members
from tests.scenarios.histories.plan import Plan
from tests.scenarios.histories.watch import Watch
from tests.support.client import sha256

AGREE_S = 60.0
"""The time within which members have to be ready and to agree once all faults are undone. They should agree within two
rounds of anti-entropy (10 s); the rest is for a machine that does other things."""
LOOK_S = 0.2
TRIES = 4
TRY_AGAIN_S = 2.0


@dataclass
class Outcome:
    """The outcome of a run: its history and its findings."""

    plan: Plan
    history: History
    fired: Counter[str]
    missed: Counter[str]
    probes: int
    not_ready: int
    took_s: float


def run(plan: Plan, directory: Path | None = None, planted: str = "") -> Outcome:
    """Play a plan. Data and logs are left in `directory`, where one is given. `planted` names a bug (see launch)."""
    with contextlib.ExitStack() as stack:
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="histories-")))
        directory.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        members = stack.enter_context(Members(plan, directory, planted))
        return _play(plan, members, began)


def _play(plan: Plan, members: Members, began: float) -> Outcome:
    history, pool = History(), Pool()
    balancer = Balancer(members.all)
    stage = FaultTarget(plan, members, history)
    clients = [ClientThread(number, plan.seed, members, history, pool) for number in range(plan.clients)]
    watch = Watch(members, history, stage.fired)
    balancer.start()
    watch.start()
    try:
        stage.start()
        for client in clients:
            client.start()
        until = time.monotonic() + plan.seconds
        while time.monotonic() < until and stage.failure is None:
            time.sleep(LOOK_S)
    finally:
        stage.stop()
        for client in clients:
            client.stop()
        _wait_agreed(members, history)
        balancer.stop()
        watch.stop()
    _look_at_everything(members, history, pool)
    took_s = time.monotonic() - began
    return Outcome(plan, history, stage.fired, stage.missed, balancer.probes, balancer.refused, took_s)


def _wait_agreed(members: Members, history: History) -> None:
    healed = time.monotonic()
    while time.monotonic() < healed + AGREE_S:
        history.digests = {}
        with contextlib.suppress(OSError, KeyError, ValueError):
            ready = all(is_ready_now(member) for member in members.all)
            history.digests = {member.number: member.server.root() for member in members.all}
            if ready and len(set(history.digests.values())) == 1:
                history.agreed_after_s = time.monotonic() - healed
                return
        time.sleep(LOOK_S)


def _look_at_everything(members: Members, history: History, pool: Pool) -> None:
    """Read every tag, every manifest whose push was acknowledged, and the blobs of those that are there, everywhere."""
    recorder = Recorder(history, -1)
    tags = sorted({operation.key for operation in history.operations if operation.action in WRITES})
    pushed = {f"{repository}@{made.digest}": made for repository, all_ in pool.images.items() for made in all_}
    for member in members.all:
        for key in tags:
            _insist(lambda member=member, key=key: recorder.read_tag(member, key, "final-read"), history)
        for key, made in sorted(pushed.items()):
            manifest = _insist(lambda m=member, key=key: recorder.read_manifest(m, key, "final-manifest"), history)
            for blob in made.blobs if manifest.value else ():
                digest = sha256(blob)
                _insist(lambda m=member, k=key, d=digest: recorder.read_blob(m, k, d, "final-blob"), history)


def _insist(read: Callable[[], Operation], history: History) -> Operation:
    """Read again what could not be had, a few times: a pull may wait for a transfer. The last answer counts."""
    for _ in range(TRIES):
        operation = read()
        if operation.is_answered:
            break
        history.operations.remove(operation)
        time.sleep(TRY_AGAIN_S)
    else:
        history.operations.append(operation)
    return operation

"""One run: the cluster, clients and faults together, then healing, then a last look at everything at every member."""

import contextlib
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.scenarios.histories.balancer import Balancer, is_ready_now
from tests.scenarios.histories.clients import ClientThread, Pool, Recorder
from tests.scenarios.histories.faults.stage import Stage
from tests.scenarios.histories.history import WRITES, History
from tests.scenarios.histories.members import Members
from tests.scenarios.histories.plan import Plan

AGREE_S = 60.0
"""How long members have to be ready and to agree once all faults are undone. They should agree within two rounds of
anti-entropy (10 s); the rest is for a machine that does other things."""
LOOK_S = 0.2


@dataclass
class Outcome:
    """What a run was."""

    plan: Plan
    history: History
    fired: Counter[str]
    missed: Counter[str]
    probes: int
    not_ready: int
    took_s: float


def run(plan: Plan, directory: Path | None = None) -> Outcome:
    """Play a plan. Data and logs are left in `directory`, where one is given."""
    with contextlib.ExitStack() as stack:
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="histories-")))
        directory.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        members = stack.enter_context(Members(plan, directory))
        return _play(plan, members, began)


def _play(plan: Plan, members: Members, began: float) -> Outcome:
    history, pool = History(), Pool()
    balancer = Balancer(members.all)
    stage = Stage(plan, members, history)
    clients = [ClientThread(number, plan.seed, members, history, pool) for number in range(plan.clients)]
    balancer.start()
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
    _look_at_everything(members, history)
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


def _look_at_everything(members: Members, history: History) -> None:
    """Every tag, every manifest whose push was acknowledged, and its blobs, at every member."""
    for member in members.all:
        member.in_rotation = True  # all are to be ready by now
    recorder = Recorder(history, -1)
    tags = sorted({operation.key for operation in history.operations if operation.action in WRITES})
    for member in members.all:
        for key in tags:
            recorder.read_tag(member, key, action="final-read")

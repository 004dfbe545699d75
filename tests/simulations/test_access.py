"""Scenarios of access control, and how its checkers read what they judge."""

import asyncio

import pytest

from simulations.access_states import NOW_MS
from simulations.checkers import Violation
from simulations.checkers.admissions import Presented, presented_by
from simulations.planted.access_scenarios import begin, join, part
from simulations.recovery import recover
from simulations.simulation import Simulation
from simulations.workload.first_accounts import ADMINISTRATORS
from tests.simulations.steps import play

ACCESS = ("access",)
ENFORCED = ("access", "enforced")


def policies(simulation):
    return [node.instance.catalog.access.policy for node in simulation.nodes]


def test_two_administrators_that_remove_each_other_leave_none_and_recovery_makes_one():
    async def act(simulation: Simulation) -> None:
        changes = await begin(simulation, is_enforced=True)
        first, second = simulation.nodes
        await changes.ask(first, "account/remove", {"name": ADMINISTRATORS[2]})
        await simulation.converge()
        part(simulation)
        await changes.remove_each_other((ADMINISTRATORS[0], first), (ADMINISTRATORS[1], second))
        await join(simulation)
        assert [policy.administrators(NOW_MS) for policy in policies(simulation)] == [[], []]
        simulation.disturbances.fired("kill")
        first.die(power_cut=False)
        account = await recover(first, "root", "a password of root")
        await join(simulation)
        assert [policy.administrators(NOW_MS) for policy in policies(simulation)] == [[account], [account]]
        root = await changes.set_password(second, "root", "another password")
        assert await changes.ask(second, "account/create", {"name": ADMINISTRATORS[0], "admin": True}, root)

    play(act, sites=("eu", "us"), conditions=ENFORCED)


@pytest.mark.parametrize(
    ("method", "path", "wanted"),
    [
        ("GET", "/v2/app/manifests/v1", ("app", "pull")),
        ("PUT", "/v2/base/os/manifests/v1", ("base/os", "push")),
        ("DELETE", "/v2/app/blobs/sha256:0", ("app", "delete")),
        ("DELETE", "/v2/app/blobs/uploads/x", ("app", "push")),
        ("GET", "/v2/", ("", "")),
        ("GET", "/v2/token", ("", "")),
        ("POST", "/_concord/access/account/block", ("*", "admin")),
        ("POST", "/_concord/access/grant", ("*", "")),
    ],
)
def test_a_request_is_judged_by_what_its_path_and_method_need(method, path, wanted):
    headers = [(b"authorization", b"Basic Y2k6c2VjcmV0")]
    found = presented_by({"method": method, "path": path, "headers": headers})
    assert found == Presented("ci", "secret", *wanted, is_administrative="access" in path)


def test_requests_between_instances_and_signed_ones_are_not_judged():
    signed = [(b"concord-session", b"x")]
    assert presented_by({"method": "POST", "path": "/_concord/peer/facts", "headers": []}) is None
    assert presented_by({"method": "POST", "path": "/_concord/access/grant", "headers": signed}) is None


def test_an_acknowledged_change_that_is_nowhere_is_a_violation():
    async def act(simulation: Simulation) -> None:
        changes = await begin(simulation, is_enforced=False)
        first = simulation.nodes[0]
        await asyncio.sleep(1)
        part(simulation)
        backup = first.backup()
        await changes.ask(first, "account/block", {"name": "ci"})
        first.die(power_cut=False)
        first.image = backup  # unlike `lifecycle.restore`, this tells no checker
        await first.start(connected=False)
        with pytest.raises(Violation, match="account/block"):
            simulation.checkers.access.check_end(simulation.nodes)

    play(act, sites=("eu", "us"), conditions=ACCESS)

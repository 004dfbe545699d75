"""Steps that scenarios share: play a scenario, push until it is acknowledged, wait for agreement."""

import asyncio

from simulations.plan import draw_plan
from simulations.run import run
from simulations.workload.images import ALL_IMAGES, digest_of


def play(act, sites=("eu", "us", "ap"), seed=0, **chosen):
    """Carry out a scenario. Nothing may be broken in it."""
    plain = {"faults": (), "conditions": (), "between_sites_s": 0.0}
    plan = draw_plan(seed, sites=sites, **plain | chosen)
    outcome = run(plan, act)
    assert outcome.violations == []
    return outcome


def held(seed, **chosen):
    """Play the plan of a seed. Nothing may be broken in it."""
    assert run(draw_plan(seed, **chosen)).violations == []


async def pushed(work, node, tag, image):
    """Push to the repository of the scenarios until it is acknowledged."""
    await work.push_until_acknowledged(node, "app", tag, image)


async def put_again(work, node, tag):
    """Push a manifest whose content is there."""
    image, path = ALL_IMAGES[0], f"/v2/app/manifests/{tag}"
    headers = {"Content-Type": image.media_type}
    answer = await work.ask("push", node, "PUT", path, image.body, headers, "app", tag, digest_of(image.body))
    return answer.status == 201


async def upload_through(work, place, owner):
    """Begin an upload at one instance and go on at another."""
    begun = await work.ask("begin upload", owner, "POST", "/v2/app/blobs/uploads/", repository="app")
    chunk = {"Content-Range": "0-2"}
    answer = await work.ask("chunk", place, "PATCH", begun.headers["location"], b"abc", chunk, repository="app")
    assert answer.status == 202
    return answer.headers["location"]


async def agree(simulation):
    await simulation.heal()
    await simulation.converge()
    await asyncio.sleep(0.5)


def winners(simulation, repository="app", tag="v1"):
    """Return what each instance serves under a tag."""
    rows = (node.instance.catalog.queries.manifest_by_tag(repository, tag) for node in simulation.nodes)
    return {row.digest if row else None for row in rows}


async def told_to_leave(simulation, node):
    """Have an instance leave. Return a future that is done when it is gone."""
    url = f"http://{node.name}/_concord/leave"
    left = simulation.cluster.loop.create_future()
    node.on_left = lambda: (simulation.lifecycle.decommissioned(node), left.set_result(None))
    async with simulation.cluster.network.request("operator", None, "POST", url, [], b"") as answer:
        assert answer.status == 200
    return left

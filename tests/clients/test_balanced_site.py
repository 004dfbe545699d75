"""Real clients through a plain round-robin balancer over three instances of one site."""

import pytest

from tests.support.engines import Failed
from tests.support.proxy import RoundRobin

ROUNDS = 50


@pytest.fixture(scope="module")
def balancer(one_site):
    with RoundRobin([server.address for server in one_site.servers]) as proxy:
        yield proxy


def test_push_retag_pull_and_delete_fifty_times_without_a_failure_and_never_the_old_image(
    engine, skopeo, balancer, repository
):
    reference = f"{balancer.address}/{repository}:latest"
    for number in range(ROUNDS):
        image = engine.build(f"round-{number}")
        built = engine.image_id(image)
        engine.push(image, reference)
        engine.forget(image)
        # What was pulled before stays, as it does where people pull: it must not be taken for what is there now.
        assert engine.pull(reference) == built, f"round {number}: the old image was pulled"
        if engine.name == "buildah":
            engine.forget(reference)  # it pulls nothing while it has one of that name
        skopeo.delete(reference)
        for _ in range(3):
            assert balancer.client.head(f"/v2/{repository}/manifests/latest").status == 404
    with pytest.raises(Failed):
        engine.pull(reference)

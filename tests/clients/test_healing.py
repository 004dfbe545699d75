"""The only holder of an image is gone: pushing it again elsewhere heals it."""

import pytest

from tests.support.server import running_cluster, wait_until


@pytest.mark.parametrize("name", ["docker", "skopeo"])
def test_pushing_again_elsewhere_heals_an_image_whose_holder_is_gone(engines, name, tmp_path):
    engine = engines(name)
    with running_cluster(tmp_path, ["eu", "us", "ap"], holder_wait_s="1") as cluster:
        eu, us, ap = cluster.servers
        image = engine.build("healed")
        built = engine.image_id(image)
        engine.push(image, f"{eu.address}/app:v1")
        cluster.wait_agreed()
        eu.kill()
        engine.push(image, f"{us.address}/app:v1")
        engine.forget(image)
        wait_until(lambda: ap.root() == us.root())
        assert engine.pull(f"{ap.address}/app:v1") == built
        if name != "skopeo":
            engine.forget(f"{ap.address}/app:v1")

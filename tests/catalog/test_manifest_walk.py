"""The walk over what a manifest refers to."""

from typing import NamedTuple

from registry.catalog.manifest_walk import ManifestWalk
from registry.event_loop.steps import ROWS_PER_STEP
from registry.oci.names import Digest


class Part(NamedTuple):
    digest: Digest


def walked(trees, root):
    """Return the manifests in the order of their visits, and the walk at its end. Every part is descended into."""
    walk = ManifestWalk([root], lambda manifest: [Part(child) for child in trees.get(manifest, ())])
    visited = []
    for manifest in walk:
        visited.append(manifest)
        for part in walk.parts(manifest):
            walk.descend(part.digest)
    return visited, walk


def test_a_manifest_that_several_indexes_share_is_visited_once_and_its_rows_count_for_each():
    visited, walk = walked({"root": ["one", "two"], "one": ["shared"], "two": ["shared"]}, "root")
    assert sorted(visited) == ["one", "root", "shared", "two"]
    assert walk.parts_read == 4


def test_manifests_that_refer_to_each_other_end_the_walk():
    assert walked({"one": ["two"], "two": ["one"]}, "one")[0] == ["one", "two"]


def test_a_walk_may_pause_after_each_bounded_step():
    walk = ManifestWalk(["root"], lambda manifest: [Part(Digest(str(n))) for n in range(3 * ROWS_PER_STEP + 1)])
    pauses = [number for number, _ in enumerate(walk.parts(next(iter(walk))), 1) if walk.may_pause]
    assert pauses == [ROWS_PER_STEP, 2 * ROWS_PER_STEP, 3 * ROWS_PER_STEP]

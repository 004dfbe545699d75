"""The part of `kustomize build` that k8s/ uses, so that its objects can be checked where there is no kustomize.

Resources, components, namespace, images, strategic merge patches and JSON patches; anything else is an error. As
kustomize does, a strategic merge puts new entries of a list before those that were there.
"""

import copy
from pathlib import Path
from typing import Any

import yaml

KNOWN = {"apiVersion", "kind", "namespace", "resources", "components", "images", "patches"}
MERGE_KEYS = {"containers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath"}
CLUSTER_WIDE = {"Namespace"}

Object = dict[str, Any]


def build(directory: Path) -> list[Object]:
    """All objects that a kustomization makes."""
    return _build(directory, [])


def _build(directory: Path, objects: list[Object]) -> list[Object]:
    file = directory / "kustomization.yaml"
    [kustomization] = read(file)
    assert kustomization.keys() <= KNOWN, f"{file} has what this does not know"
    for name in kustomization.get("resources", []):
        path = directory / name
        objects += build(path) if path.is_dir() else read(path)
    for name in kustomization.get("components", []):
        _build(directory / name, objects)
    for patch in kustomization.get("patches", []):
        _patch(objects, directory / patch["path"], patch.get("target"))
    for image in kustomization.get("images", []):
        _set_tag(objects, image["name"], image["newTag"])
    if "namespace" in kustomization:
        _set_namespace(objects, kustomization["namespace"])
    return objects


def read(file: Path) -> list[Any]:
    return list(yaml.safe_load_all(file.read_text()))


def _patch(objects: list[Object], file: Path, target: dict[str, str] | None) -> None:
    if target is None:
        for patch in read(file):
            fitting = [one for one in objects if _identity(one) == _identity(patch)]
            assert len(fitting) == 1, f"{file} fits {len(fitting)} objects"
            _merge(fitting[0], patch)
        return
    [patch] = read(file)
    found = [one for one in objects if one["kind"] == target["kind"]]
    assert found, f"{file} fits nothing"
    for one in found:
        for step in patch:
            _do(one, step)


def _identity(one: Object) -> tuple[str, str, str | None]:
    return one["kind"], one["metadata"]["name"], one["metadata"].get("namespace")


def _merge(into: Object, patch: Object) -> None:
    for name, value in patch.items():
        there = into.get(name)
        if isinstance(value, dict) and isinstance(there, dict):
            _merge(there, value)
        elif isinstance(value, list) and name in MERGE_KEYS and there is not None:
            into[name] = _merged(there, value, MERGE_KEYS[name])
        else:
            into[name] = copy.deepcopy(value)


def _merged(there: list[Object], patch: list[Object], key: str) -> list[Object]:
    """Entries of the patch first, each merged into the one of the same name."""
    old = {one[key]: one for one in there}
    for one in patch:
        _merge(old.setdefault(one[key], {}), one)
    first = [one[key] for one in patch]
    return [old[name] for name in [*first, *(name for name in old if name not in first)]]


def _do(one: Object, step: Object) -> None:
    """One step of a JSON patch (RFC 6902)."""
    value = copy.deepcopy(_at(one, step["from"])) if step["op"] == "copy" else step["value"]
    holder, _, last = step["path"].rpartition("/")
    place, last = _at(one, holder), _unescaped(last)
    if not isinstance(place, list):
        place[last] = value
    elif step["op"] == "replace":
        place[int(last)] = value
    else:
        place.insert(len(place) if last == "-" else int(last), value)


def _at(value: Any, path: str) -> Any:
    for part in path.split("/")[1:]:
        value = value[int(part)] if isinstance(value, list) else value[_unescaped(part)]
    return value


def _unescaped(part: str) -> str:
    """Return a part of a JSON pointer (RFC 6901) as it is in the object."""
    return part.replace("~1", "/").replace("~0", "~")


def _set_tag(objects: list[Object], image: str, tag: str) -> None:
    for one in objects:
        for container in containers(one):
            if container["image"] == image:
                container["image"] = f"{image}:{tag}"


def _set_namespace(objects: list[Object], namespace: str) -> None:
    for one in objects:
        if one["kind"] not in CLUSTER_WIDE:
            one["metadata"]["namespace"] = namespace


def containers(one: Object) -> list[Object]:
    return one["spec"]["template"]["spec"]["containers"] if "template" in one.get("spec", {}) else []

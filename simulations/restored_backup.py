"""A disk restored by the code of `concord backup` and `concord restore`, on files of the machine."""

import random
import shutil
from pathlib import Path

from registry.catalog.catalog import PATH
from registry.cli.backup import backup, restore
from simulations.storage import DiskImage


def restore_backup(disk: DiskImage, scratch: Path, rng: random.Random) -> DiskImage:
    """The disk of another instance, started from a backup of `disk`."""
    for name, data in [*disk[0].items(), *disk[1].items()]:
        place = scratch / "data" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    backup(scratch / "data", scratch / "backup")
    restore(scratch / "backup", scratch / "again", rng.randbytes)
    again = scratch / "again"
    names = sorted(str(path.relative_to(again)) for path in again.rglob("*") if path.is_file())
    files = {name: (again / name).read_bytes() for name in names}
    shutil.rmtree(scratch)
    catalogs = {name: files.pop(name) for name in names if name.startswith(PATH)}
    return files, catalogs

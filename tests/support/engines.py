"""Real clients: docker with a daemon of its own, podman, buildah, skopeo."""

import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

from tests.support.needs import need

BUSYBOX = Path("/bin/busybox")
TIMEOUT_S = 180


class Failed(Exception):
    """A client that ended with an error, and what it said."""


def run(command: list[str], **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, **options)
    if done.returncode:
        raise Failed(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def root_tar(path: Path, version: str, runnable: bool = False, padding: int = 0) -> Path:
    """A root file system that says which version it is (when run, too, if `runnable`), and so many random bytes."""
    with tarfile.open(path, "w") as tar:
        for name, content in (("version", version.encode()), ("padding", os.urandom(padding))):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        if runnable:
            need(BUSYBOX.exists(), "busybox-static is missing")
            tar.add(BUSYBOX, "bin/busybox")
    return path


class Engine:
    """A client with storage of its own. Local images are named by `build`; references name what is in a registry."""

    name = ""

    def __init__(self, directory: Path) -> None:
        need(shutil.which(self.name) is not None, f"{self.name} is missing")
        self.directory = directory

    def build(self, version: str, runnable: bool = False, padding: int = 0) -> str:
        """Make a local image. Return its name."""
        raise NotImplementedError

    def push(self, image: str, reference: str) -> None:
        raise NotImplementedError

    def pull(self, reference: str) -> str:
        """Pull, from the registry alone. Return the image's id: the digest of its config."""
        raise NotImplementedError

    def login(self, address: str, name: str, password: str) -> None:
        """Log in at a registry. The variables DOCKER_CONFIG and REGISTRY_AUTH_FILE say where that is kept."""
        raise NotImplementedError

    def image_id(self, image: str) -> str:
        raise NotImplementedError

    def forget(self, image: str) -> None:
        """Remove a local image."""
        raise NotImplementedError

    def close(self) -> None:
        pass


class Docker(Engine):
    name = "docker"

    def __init__(self, directory: Path, storage: str = "vfs") -> None:
        """An empty `storage` is what dockerd finds best; vfs works everywhere, and copies all of an image for each
        step of a build."""
        super().__init__(directory)
        need(shutil.which("dockerd") is not None, "dockerd is missing")
        self._host = f"unix://{directory}/sock"
        options = ["--iptables=false", "--ip6tables=false", "--bridge=none"]
        options += [f"--storage-driver={storage}"] if storage else []
        places = [f"--{name}={directory / name}" for name in ("data-root", "exec-root", "pidfile")]
        with (directory / "log").open("wb") as log:
            self._daemon = subprocess.Popen(["dockerd", *options, *places, "-H", self._host], stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.command("version")
                return
            except Failed:
                assert time.monotonic() < deadline, (directory / "log").read_text()[-3000:]
                time.sleep(0.1)

    def command(self, *words: str) -> str:
        return run(["docker", "-H", self._host, *words], env=os.environ | {"DOCKER_BUILDKIT": "0"})

    def build(self, version: str, runnable: bool = False, padding: int = 0) -> str:
        name = f"local/app:{version}"
        self.command("import", str(root_tar(self.directory / "root.tar", version, runnable, padding)), name)
        return name

    def push(self, image: str, reference: str) -> None:
        self.command("tag", image, reference)
        self.command("push", reference)
        self.command("rmi", reference)

    def pull(self, reference: str) -> str:
        self.command("pull", reference)
        return self.image_id(reference)

    def login(self, address: str, name: str, password: str) -> None:
        self.command("login", "--username", name, "--password", password, address)

    def image_id(self, image: str) -> str:
        return self.command("image", "inspect", image, "--format", "{{.Id}}").removeprefix("sha256:")

    def run(self, image: str) -> str:
        return self.command("run", "--rm", "--network", "host", image, "/bin/busybox", "cat", "/version")

    def forget(self, image: str) -> None:
        self.command("rmi", "--force", image)

    def close(self) -> None:
        self._daemon.terminate()
        self._daemon.wait(30)
        left_mounted = self.directory / "exec-root" / "netns" / "default"
        subprocess.run(["umount", str(left_mounted)], capture_output=True, check=False)


class _Containers(Engine):
    """The common part of podman and buildah."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        storage = ["--root", str(directory / "storage"), "--runroot", str(directory / "run"), "--storage-driver", "vfs"]
        self._command = [self.name, *storage]

    def _run(self, *words: str) -> str:
        return run([*self._command, *words])

    def push(self, image: str, reference: str, *options: str) -> None:
        self._run("push", "--tls-verify=false", *options, image, f"docker://{reference}")

    def pull(self, reference: str) -> str:
        return self._run("pull", "--quiet", "--tls-verify=false", reference)

    def login(self, address: str, name: str, password: str) -> None:
        self._run("login", "--tls-verify=false", "--username", name, "--password", password, address)

    def forget(self, image: str) -> None:
        self._run("rmi", "--force", image)


class Podman(_Containers):
    name = "podman"

    def build(self, version: str, runnable: bool = False, padding: int = 0) -> str:
        name = f"localhost/app:{version}"
        self._run("import", "--quiet", str(root_tar(self.directory / "root.tar", version, runnable, padding)), name)
        return name

    def image_id(self, image: str) -> str:
        return self._run("image", "inspect", image, "--format", "{{.Id}}")

    def run(self, image: str) -> str:
        limits = ["--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]
        manners = ["--runtime", "runc", "--cgroup-manager", "cgroupfs"]
        return self._run(*manners, "run", "--rm", *limits, image, "/bin/busybox", "cat", "/version")


class Buildah(_Containers):
    name = "buildah"

    def build(self, version: str, runnable: bool = False, padding: int = 0) -> str:
        name = f"localhost/app:{version}"
        container = self._run("from", "scratch")
        self._run(
            "add", "--quiet", container, str(root_tar(self.directory / "root.tar", version, runnable, padding)), "/"
        )
        self._run("commit", "--rm", "--quiet", container, name)
        return name

    def image_id(self, image: str) -> str:
        return json.loads(self._run("inspect", "--type", "image", image))["FromImageID"]

    def run(self, image: str) -> str:
        container = self._run("from", "--pull-never", image)
        try:
            return self._run("run", "--isolation", "chroot", container, "/bin/busybox", "cat", "/version")
        finally:
            self._run("rm", container)


class Skopeo(Engine):
    """Its local images are OCI layouts."""

    name = "skopeo"

    def build(self, version: str, runnable: bool = False, padding: int = 0) -> str:
        from tests.support import images
        from tests.support.layouts import write_layout

        tar = root_tar(self.directory / "root.tar", version, runnable, padding).read_bytes()
        return f"oci:{write_layout(self.directory / version, images.unpackable([tar]))}:app"

    def push(self, image: str, reference: str, *options: str) -> None:
        run(["skopeo", "copy", "--quiet", "--dest-tls-verify=false", *options, image, f"docker://{reference}"])

    def pull(self, reference: str) -> str:
        target = self.directory / "pulled"
        shutil.rmtree(target, ignore_errors=True)
        run(["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{reference}", f"dir:{target}"])
        return self.image_id(f"dir:{target}")

    def image_id(self, image: str) -> str:
        return json.loads(run(["skopeo", "inspect", "--raw", image]))["config"]["digest"].removeprefix("sha256:")

    def forget(self, image: str) -> None:
        shutil.rmtree(image.split(":")[1], ignore_errors=True)

    def login(self, address: str, name: str, password: str) -> None:
        run(["skopeo", "login", "--tls-verify=false", "--username", name, "--password", password, address])

    def delete(self, reference: str) -> None:
        run(["skopeo", "delete", "--tls-verify=false", f"docker://{reference}"])


ENGINES = {engine.name: engine for engine in (Docker, Podman, Buildah, Skopeo)}

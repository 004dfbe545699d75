"""What receiving an upload costs at least in Python on this machine: no HTTP and no registry, only 256 MiB out of a
socket, hashed as a registry's are and written to a file that is synced, by three threads that wait for nothing else.

    python -m benchmarks.bare [--rounds N]
"""

import argparse
import hashlib
import os
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path
from queue import SimpleQueue

from blake3 import blake3

MIB = 1024 * 1024
SIZE = 256 * MIB
AHEAD = 4


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    rounds = options.parse_args().rounds
    content = os.urandom(MIB) * (SIZE // MIB)
    with tempfile.TemporaryDirectory(prefix="concord-bare-") as name:
        for what, per_mib in (("SHA-256 alone", False), ("SHA-256 and BLAKE3 of each MiB", True)):
            rates = [SIZE / _receive(Path(name) / "content", content, per_mib) / 1e9 for _ in range(rounds)]
            print(f"{statistics.median(rates):8.2f} GB/s with {what}")


def _receive(path: Path, content: bytes, per_mib: bool) -> float:
    """Seconds for one upload."""
    with socket.create_server(("127.0.0.1", 0)) as listening, path.open("wb", buffering=0) as file:
        sender = os.fork()
        if not sender:
            with socket.create_connection(listening.getsockname()[:2]) as connection:
                connection.sendall(content)
            os._exit(0)
        connection, _ = listening.accept()
        begun = time.perf_counter()
        hashing, writing = SimpleQueue[bytearray | None](), SimpleQueue[bytearray | None]()
        room = threading.Semaphore(AHEAD)

        def hash_all() -> None:
            whole = hashlib.sha256()
            while (piece := hashing.get()) is not None:
                whole.update(piece)
                room.release()

        def write_all() -> None:
            while (piece := writing.get()) is not None:
                file.write(piece)
                if per_mib:
                    blake3(piece).digest()
            os.fsync(file.fileno())

        threads = [threading.Thread(target=hash_all), threading.Thread(target=write_all)]
        for thread in threads:
            thread.start()
        with connection:
            for _ in range(SIZE // MIB):
                piece = bytearray(MIB)
                view, at = memoryview(piece), 0
                while at < MIB:
                    at += connection.recv_into(view[at:])
                room.acquire()
                hashing.put(piece)
                writing.put(piece)
        for queue in (hashing, writing):
            queue.put(None)
        for thread in threads:
            thread.join()
        took = time.perf_counter() - begun
        os.waitpid(sender, 0)
        return took


if __name__ == "__main__":
    main()

"""The Prefect server process of `seedling run` and `seedling schedule`: `python -m seedling.flows.server_process`.

It accepts connections on a listening socket that its parent opened, and ends with its parent, also if that is killed.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

POLL_SECONDS = 0.5
SHUTDOWN_SECONDS = 5.0  # then the process ends without waiting for the server's services
START_LOCK_TIMEOUT_SECONDS = 300.0


def main(listener_descriptor: int, parent: int) -> None:
    """Serves Prefect's API until SIGTERM, or until the parent process ends. Exits with 3 if the server cannot start."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    import uvicorn
    from filelock import FileLock, Timeout
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    home: Path = get_current_settings().home

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            # Two servers that migrate a new SQLite database at the same time fail on each other's tables.
            lock = FileLock(home / "seedling-server-start.lock")
            try:
                lock.acquire(timeout=START_LOCK_TIMEOUT_SECONDS)
            except Timeout:
                print(f"{lock.lock_file} is still held: starting without it.", file=sys.stderr, flush=True)
            try:
                await super().startup(sockets)
            finally:
                lock.release()

    config = uvicorn.Config(
        create_app, factory=True, lifespan="on", log_level="error", timeout_graceful_shutdown=int(SHUTDOWN_SECONDS) - 2
    )
    server = Server(config)
    server.run(sockets=[socket.socket(fileno=listener_descriptor)])
    if not server.started:
        sys.exit(3)


def _end_with(parent: int) -> None:
    """Ends this process when its parent has ended: first by SIGTERM, then immediately."""
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SHUTDOWN_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

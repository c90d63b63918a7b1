"""What the collecting process and the spider server send each other over a Unix socket.

1. The collecting process sends a `SpiderRequest` with the file descriptors of the spider's working folder, standard
   output and standard error.
2. The server answers `STARTED` once the spider is forked, and `EXIT_CODE` when the spider has ended.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
import time
from dataclasses import asdict, dataclass
from typing import Any

STARTED = b"started"
EXIT_CODE = struct.Struct("!i")  # as in subprocess: negative for the number of a signal
DESCRIPTORS = 3
_SIZE = struct.Struct("!Q")  # of a request in bytes
_LIMITS = sorted({number for name, number in vars(resource).items() if name.startswith("RLIMIT_")})


@dataclass(frozen=True, slots=True)
class SpiderRequest:
    """What a spider collects, and what a process of its own would inherit from the collecting process."""

    request: dict[str, Any]
    environment: dict[str, str]
    limits: list[tuple[int, int]]  # (soft, hard) of each of the operating system's limits

    @classmethod
    def of_this_process(cls, request: dict[str, Any]) -> SpiderRequest:
        """Return the request with this process's environment and limits."""
        return cls(request, dict(os.environ), [resource.getrlimit(number) for number in _LIMITS])

    def inherit(self) -> None:
        """Give this process the environment and the limits."""
        os.environ.clear()
        os.environ.update(self.environment)
        time.tzset()
        for number, limit in zip(_LIMITS, self.limits, strict=True):
            if resource.getrlimit(number) != tuple(limit):
                resource.setrlimit(number, (limit[0], limit[1]))

    def send(self, connection: socket.socket, descriptors: list[int]) -> None:
        """Send the request with its file descriptors."""
        content = json.dumps(asdict(self)).encode()
        socket.send_fds(connection, [_SIZE.pack(len(content))], descriptors)
        connection.sendall(content)


def receive_request(connection: socket.socket) -> tuple[SpiderRequest, list[int]] | None:
    """Return the next request and its file descriptors; None if the socket is closed."""
    size, descriptors, _, _ = socket.recv_fds(connection, _SIZE.size, DESCRIPTORS)
    content = receive(connection, _SIZE.unpack(size)[0]) if len(size) == _SIZE.size else None
    return None if content is None else (SpiderRequest(**json.loads(content)), descriptors)


def receive(connection: socket.socket, size: int) -> bytes | None:
    """Return exactly `size` bytes; None if the other process closes the socket before."""
    content = bytearray()
    while len(content) < size:
        try:
            part = connection.recv(size - len(content))
        except ConnectionResetError:
            return None
        if not part:
            return None
        content += part
    return bytes(content)

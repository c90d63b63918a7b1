"""A spider's process as the collecting process sees it: a spider server forks it, which is started if there is none."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from seedling.scrape.spider_request import EXIT_CODE, STARTED, SpiderRequest, receive

# Variables that Python, the C library or Scrapy read when they start: a server that started with others is not used.
READ_AT_START = ("PYTHON", "LANG", "LC_", "LD_", "GLIBC_", "MALLOC_", "OPENSSL_", "SCRAPY_")
STOP_TIMEOUT_SECONDS = 10.0


@dataclass(slots=True)
class SpiderProcess:
    """A running spider: its standard output, and, after `wait`, its exit code."""

    output: IO[str]
    server: _SpiderServer
    returncode: int | None = None

    def wait(self) -> int:
        """Wait for the spider's end, and return its exit code; that of the server, if the server ended before."""
        code = receive(self.server.connection, EXIT_CODE.size)
        self.returncode = self.server.stop() if code is None else int(EXIT_CODE.unpack(code)[0])
        return self.returncode


@contextmanager
def spider_process(request: dict[str, Any], errors: IO[str]) -> Iterator[SpiderProcess]:
    """Run a spider, and kill it at the end of the block if it still runs. errors: a file for its standard error."""
    server, output = _start_spider(request, errors)
    process = SpiderProcess(output, server)
    try:
        yield process
    finally:
        output.close()
        if process.returncode is None:
            server.stop()  # which kills the spider
        elif server.process.returncode is None:
            _idle_servers.append(server)


def _start_spider(request: dict[str, Any], errors: IO[str]) -> tuple[_SpiderServer, IO[str]]:
    """Start the spider by an idle server, or, if there is none or it has just ended, by a new one."""
    while _idle_servers:
        server = _idle_servers.pop()
        if server.is_usable() and (output := server.start_spider(request, errors)):
            return server, output
        server.stop()
    server = _SpiderServer.start(errors)
    return server, server.start_spider(request, errors) or _no_output()


def _no_output() -> IO[str]:
    return open(os.devnull, encoding="utf-8")  # noqa: PTH123


@dataclass(slots=True)
class _SpiderServer:
    """A process of `seedling.scrape.spider_server`, for the process that started it."""

    process: subprocess.Popen[bytes]
    connection: socket.socket
    variables: dict[str, str] = field(default_factory=lambda: _variables_read_at_start())
    owner: int = field(default_factory=os.getpid)

    @classmethod
    def start(cls, errors: IO[str]) -> _SpiderServer:
        """Start a server. errors: a file for what it writes before it forks its first spider."""
        here, there = socket.socketpair()
        command = [sys.executable, "-P", "-m", "seedling.scrape.spider_server", str(there.fileno())]
        with there:
            process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[there.fileno()],
            )
        return cls(process, here)

    def is_usable(self) -> bool:
        """Whether this process started the server, in the same environment, and it still runs."""
        same = self.owner == os.getpid() and self.variables == _variables_read_at_start()
        return same and self.process.poll() is None

    def start_spider(self, request: dict[str, Any], errors: IO[str]) -> IO[str] | None:
        """Start a spider and return its standard output; None if the server has ended."""
        reader, writer = os.pipe()
        folder = os.open(".", getattr(os, "O_PATH", os.O_RDONLY))
        output = os.fdopen(reader, encoding="utf-8", errors="replace")
        try:
            SpiderRequest.of_this_process(request).send(self.connection, [folder, writer, errors.fileno()])
            started = receive(self.connection, len(STARTED))
        except OSError:
            started = None
        finally:
            os.close(writer)
            os.close(folder)
        if started is None:
            output.close()
            return None
        return output

    def stop(self) -> int:
        """End the server and its spider, and return its exit code; leave it to the process that started it."""
        self.connection.close()
        if self.owner != os.getpid():
            return 0
        try:
            return self.process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def _variables_read_at_start() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(READ_AT_START)}


_idle_servers: list[_SpiderServer] = []


@atexit.register
def _stop_idle_servers() -> None:
    while _idle_servers:
        _idle_servers.pop().stop()

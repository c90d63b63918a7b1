"""Forks spiders from a process that has imported Scrapy: importing it takes longer than many a crawl.

    python -P -m seedling.scrape.spider_server 7     with a Unix socket to the collecting process as file descriptor 7

This process has one thread and computes nothing, so a spider starts in the state of a new process; its request has what
a new process would inherit from the collecting process. A spider is killed if the collecting process closes the socket.
This process ends with the collecting process, and after `IDLE_SECONDS` without a request.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

from scrapy.settings import Settings
from scrapy.utils.misc import load_object

from seedling.scrape import spider
from seedling.scrape.spider_request import EXIT_CODE, STARTED, receive_request

IDLE_SECONDS = 10.0
STANDARD_OUTPUT, STANDARD_ERROR = 1, 2  # file descriptors
PARENT_CHECK_SECONDS = 0.5
NAMES_OF_CLASSES = (  # Scrapy's settings that name a class to import while a crawl starts
    "DUPEFILTER_CLASS",
    "LOG_FORMATTER",
    "ROBOTSTXT_PARSER",
    "SCHEDULER",
    "SCHEDULER_MEMORY_QUEUE",
    "SCHEDULER_PRIORITY_QUEUE",
    "STATS_CLASS",
)


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork a spider for each request. Return the request in the spider's process; None in this one, at its end."""
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the collecting one decides
    parent = os.getppid()
    while select.select([connection], [], [], IDLE_SECONDS)[0] and (received := receive_request(connection)):
        spider_request, descriptors = received
        ended, alive = os.pipe()  # the spider closes its end by ending
        spider_pid = os.fork()
        if spider_pid == 0:
            signal.signal(signal.SIGINT, interrupt)
            connection.close()
            os.close(ended)
            _attach(descriptors)
            spider_request.inherit()
            return {**spider_request.request, "leader": os.getppid()}
        for descriptor in (alive, *descriptors):
            os.close(descriptor)
        with suppress(OSError):  # the collecting process has closed the socket, which the loop finds, too
            connection.sendall(STARTED)
        exit_code = _exit_code(spider_pid, ended, connection, parent)
        with suppress(OSError):
            connection.sendall(EXIT_CODE.pack(exit_code))
    return None


def _attach(descriptors: list[int]) -> None:
    """Make the file descriptors this process's working folder, standard output and standard error."""
    folder, output, errors = descriptors
    os.fchdir(folder)
    os.dup2(output, STANDARD_OUTPUT)
    os.dup2(errors, STANDARD_ERROR)
    for descriptor in descriptors:
        os.close(descriptor)


def _exit_code(spider_pid: int, ended: int, connection: socket.socket, parent: int) -> int:
    """Wait for the spider; kill it if the collecting process closes the socket or ends."""
    watched: list[Any] = [ended, connection]
    ready: list[Any] = []
    while not ready and os.getppid() == parent:
        ready = select.select(watched, [], [], PARENT_CHECK_SECONDS)[0]
    if ended not in ready:
        os.kill(spider_pid, signal.SIGKILL)
    os.close(ended)
    return os.waitstatus_to_exitcode(os.waitpid(spider_pid, 0)[1])


def _import_classes() -> None:
    """Import what Scrapy would import while a crawl starts."""
    settings = Settings(spider.FIXED_SETTINGS)
    middlewares = [*settings.getwithbase("DOWNLOADER_MIDDLEWARES"), *settings.getwithbase("SPIDER_MIDDLEWARES")]
    for name in [*middlewares, *settings.getwithbase("EXTENSIONS"), *(settings[name] for name in NAMES_OF_CLASSES)]:
        load_object(name)


def main() -> None:
    """Serve the socket whose file descriptor is the first argument."""
    _import_classes()
    gc.collect()
    gc.freeze()  # spiders need neither look through what is imported nor copy its memory
    if request := serve(socket.socket(fileno=int(sys.argv[1]))):
        spider.collect(request)


if __name__ == "__main__":
    main()

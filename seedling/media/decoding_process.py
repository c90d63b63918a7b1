"""Decodes single images in processes of their own, which end when they take too much of the processor's time.

This is the last resort behind the limits on a file's structure (seedling/media/decoding_limits.py). What is counted is the processor's
time of the one image, not the clock's: neither other programs nor the number of workers change what is refused. A decoder that
crashes takes its process with it and nothing else.
"""

from __future__ import annotations

import atexit
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from seedling.media.decoding_limits import TOO_SLOW
from seedling.media.image_modes import Color, Pixels

MAX_CPU_SECONDS = 10  # of one image; the largest ones within the limits take about three
MAX_ADDRESS_SPACE_BYTES = 8 * 2**30
REQUEST, ANSWER = struct.Struct(">dIQ?3B"), struct.Struct(">?II")
CRASHED = "undecodable"
CPU_LIMIT_STATUS = -getattr(signal, "SIGXCPU", 0)


class Decoder:
    """A process that decodes one image after the other. module: the one that calls `serve_answers` when it is started."""

    def __init__(self, module: str) -> None:
        root = str(Path(__file__).resolve().parents[2])  # of the package, however this process found it
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(  # noqa: S603  (our own module)
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for whoever asked, who ends this one by closing its input
        )

    def answer(
        self, encoded: bytes, max_megapixels: float, max_cpu_seconds: int, background: Color | None
    ) -> Pixels | str | None:
        """The pixels, or the reason why there are none; None where the process ended meanwhile."""
        assert self._process.stdin is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        try:
            color = (background is not None, *(background or (0, 0, 0)))
            self._process.stdin.write(REQUEST.pack(max_megapixels, max_cpu_seconds, len(encoded), *color))
            self._process.stdin.write(encoded)
            self._process.stdin.flush()
            return _read_answer(self._process.stdout)
        except (BrokenPipeError, EOFError):
            return None

    def close(self) -> int:
        """Ends the process; its exit status."""
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:  # what was still to be written
                pass
        return self._process.wait()


_idle: list[Decoder] = []
_lock = threading.Lock()
_owner = os.getpid()


def answer_of_process(
    module: str,
    encoded: bytes,
    max_megapixels: float,
    background: Color | None = None,
    max_cpu_seconds: int = MAX_CPU_SECONDS,
) -> Pixels | str:
    """The pixels, or the reason why there are none, by a process that is kept for the next image."""
    decoder = _take(module)
    answer = decoder.answer(encoded, max_megapixels, max_cpu_seconds, background)
    if answer is None:
        return TOO_SLOW if decoder.close() == CPU_LIMIT_STATUS else CRASHED
    with _lock:
        _idle.append(decoder)
    return answer


def _take(module: str) -> Decoder:
    global _owner
    with _lock:
        if _owner != os.getpid():  # forked: the processes are its parent's
            _idle.clear()
            _owner = os.getpid()
        if _idle:
            return _idle.pop()
    return Decoder(module)


@atexit.register
def _close_all() -> None:
    while _owner == os.getpid() and _idle:
        _idle.pop().close()


def serve_answers(decode: Callable[[bytes, float, Color | None], Pixels], refusal: type[Exception]) -> None:
    """Answers on standard output what standard input asks, until that ends. refusal: what `decode` raises, with the reason."""
    asked, told = sys.stdin.buffer, sys.stdout.buffer
    while head := asked.read(REQUEST.size):
        max_megapixels, max_cpu_seconds, length, has_background, *color = REQUEST.unpack(head)
        encoded = asked.read(length)
        _limit_this_process(max_cpu_seconds)
        try:
            pixels = np.ascontiguousarray(
                decode(encoded, max_megapixels, (color[0], color[1], color[2]) if has_background else None)
            )
        except refusal as error:
            reason = str(error).encode()
            told.write(ANSWER.pack(False, len(reason), 0) + reason)
        else:
            told.write(ANSWER.pack(True, *pixels.shape[:2]))
            told.write(pixels.tobytes())
        told.flush()


def _limit_this_process(max_cpu_seconds: int) -> None:
    """From now on. An exported model's preprocessing may run on Windows, which knows no such limits."""
    if sys.platform == "win32":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    limits = {
        resource.RLIMIT_CPU: int(used.ru_utime + used.ru_stime) + 1 + max_cpu_seconds,
        resource.RLIMIT_AS: MAX_ADDRESS_SPACE_BYTES,
        resource.RLIMIT_CORE: 0,
    }
    for which, limit in limits.items():
        hard = resource.getrlimit(which)[1]
        resource.setrlimit(which, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _read_answer(pipe: IO[bytes]) -> Pixels | str:
    decoded, first, second = ANSWER.unpack(_read(pipe, ANSWER.size))
    if not decoded:
        return _read(pipe, first).decode()
    pixels: Pixels = np.frombuffer(_read(pipe, first * second * 3), np.uint8).reshape(first, second, 3)
    return pixels


def _read(pipe: IO[bytes], size: int) -> bytearray:
    content = bytearray(size)
    rest = memoryview(content)
    while len(rest):
        count = pipe.readinto(rest)  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        rest = rest[count:]
    return content

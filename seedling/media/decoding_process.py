"""Decode images in separate processes with a limit on the processor time per image.

This is the last line of defense after the limits on a file's structure (seedling/media/decoding_limits.py). The limit
is on processor time, not on elapsed time, so neither other programs nor the number of workers change which images are
rejected. A crash of a decoder ends only its own process.
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

MAX_CPU_SECONDS = 10  # per image; the largest images within the limits take about three
MAX_ADDRESS_SPACE_BYTES = 8 * 2**30
REQUEST, ANSWER = struct.Struct(">dIQ?3B"), struct.Struct(">?II")
CRASHED = "undecodable"
CPU_LIMIT_STATUS = -getattr(signal, "SIGXCPU", 0)


class Decoder:
    """A process that decodes one image after the other.

    module: the module that calls `serve_answers` when it runs.
    """

    def __init__(self, module: str) -> None:
        root = str(Path(__file__).resolve().parents[2])  # the package's location, however this process imported it
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(  # noqa: S603  (our own module)
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C reaches only the parent, which ends this process by closing its input
        )

    def answer(
        self, encoded: bytes, max_megapixels: float, max_cpu_seconds: int, background: Color | None
    ) -> Pixels | str | None:
        """Return the pixels, or the reason code of a rejection; None if the process has ended."""
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
        """End the process and return its exit status."""
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:  # unwritten data
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
    """Decode an image in a process, which is kept for the next image.

    Returns the pixels, or the reason code of a rejection. module: see `Decoder`.
    """
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
        if _owner != os.getpid():  # after a fork, the processes belong to the parent
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
    """Answer the requests on standard input on standard output, until standard input ends.

    refusal: the exception that `decode` raises, with the reason code as its message.
    """
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while head := requests.read(REQUEST.size):
        max_megapixels, max_cpu_seconds, length, has_background, red, green, blue = REQUEST.unpack(head)
        encoded = requests.read(length)
        _limit_this_process(max_cpu_seconds)
        try:
            background = (red, green, blue) if has_background else None
            pixels = np.ascontiguousarray(decode(encoded, max_megapixels, background))
        except refusal as error:
            reason = str(error).encode()
            answers.write(ANSWER.pack(False, len(reason), 0) + reason)
        else:
            answers.write(ANSWER.pack(True, *pixels.shape[:2]))
            answers.write(pixels.tobytes())
        answers.flush()


def _limit_this_process(max_cpu_seconds: int) -> None:
    """Limit this process from now on.

    Windows, where an exported model's preprocessing may run, does not have such limits.
    """
    if sys.platform == "win32":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    limits = {
        resource.RLIMIT_CPU: int(used.ru_utime + used.ru_stime) + 1 + max_cpu_seconds,
        resource.RLIMIT_AS: MAX_ADDRESS_SPACE_BYTES,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _read_answer(pipe: IO[bytes]) -> Pixels | str:
    is_decoded, length_or_height, width = ANSWER.unpack(_read(pipe, ANSWER.size))
    if not is_decoded:
        return _read(pipe, length_or_height).decode()
    height = length_or_height
    pixels: Pixels = np.frombuffer(_read(pipe, height * width * 3), np.uint8).reshape(height, width, 3)
    return pixels


def _read(pipe: IO[bytes], size: int) -> bytearray:
    content = bytearray(size)
    remaining = memoryview(content)
    while len(remaining):
        count = pipe.readinto(remaining)  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        remaining = remaining[count:]
    return content

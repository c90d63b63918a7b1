"""Decodes untrusted images in separate processes with a limit on processor time, in parallel with the model.

The kernel ends a process whose image takes too long, also inside a decoder; another process is forked from a server
that has the decoders loaded. The result is an uncompressed bitmap of the same pixels, which is cheap to read.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import signal
import struct
import threading
from multiprocessing.connection import Connection

import anyio
from anyio import to_thread
from PIL import Image, WebPImagePlugin  # noqa: F401  (loaded before processes are forked)

from seedling.media import images
from seedling.media.decoding_limits import TOO_SLOW
from seedling.media.image_modes import Color

Image.preinit()

UNDECODABLE = "undecodable"
PROCESSOR_SECONDS = 0.25  # for any image
# Four times the time of the slowest ordinary files: 16 megapixels in lossless WebP.
PROCESSOR_SECONDS_PER_MEGAPIXEL = 0.25
MAX_WAIT_FACTOR = 20.0  # times the processor time, in case other processes need the cores
MIN_WAIT_SECONDS = 30.0
WORKER_NICENESS = 5  # the model and the event loop go first
START = struct.Struct("!cdd")  # task, maximum megapixels, processor seconds
MEASURE, DECODE = b"m", b"d"
READY = b"ready"
START_TIMEOUT_SECONDS = 60.0  # for a process on a busy machine
SIZE, BITMAP, REASON = b"s", b"b", b"r"


class DecodingFailed(ValueError):
    """The image cannot be decoded; the message is the reason code."""


class ImageWorkers:
    """A pool of at most `count` processes that measure and decode images.

    processor_seconds: the time limit for any image, to which larger images add; background: the color behind
    transparent images, None for the one that makes their content visible.
    """

    def __init__(
        self, count: int, processor_seconds: float = PROCESSOR_SECONDS, background: Color | None = None
    ) -> None:
        self._processor_seconds, self._background = processor_seconds, background
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["seedling.serving.image_workers", "typer"])
        self._limiter = anyio.CapacityLimiter(count)
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()

    async def warm_up(self) -> None:
        """Starts one process, so that the first request does not wait for it."""
        with contextlib.suppress(DecodingFailed):
            await self.megapixels(b"")

    async def megapixels(self, encoded: bytes) -> float:
        """Returns the size of an image in megapixels, read from its header. Raises DecodingFailed."""
        kind, content = await self._ask(MEASURE, encoded, 0.0, self._processor_seconds)
        return float(content) if kind == SIZE else 0.0

    async def bitmap(self, encoded: bytes, megapixels: float, max_megapixels: float) -> bytes:
        """Returns the pixels as an uncompressed bitmap file. megapixels: by the header. Raises DecodingFailed."""
        seconds = self._processor_seconds + PROCESSOR_SECONDS_PER_MEGAPIXEL * min(megapixels, max_megapixels)
        _, content = await self._ask(DECODE, encoded, max_megapixels, seconds)
        return content

    def close(self) -> None:
        """Ends the processes."""
        with self._lock:
            workers, self._idle = self._idle, []
        for worker in workers:
            worker.end()

    async def _ask(self, task: bytes, encoded: bytes, max_megapixels: float, seconds: float) -> tuple[bytes, bytes]:
        async with self._limiter:
            return await to_thread.run_sync(self._ask_in_thread, task, encoded, max_megapixels, seconds)

    def _ask_in_thread(self, task: bytes, encoded: bytes, max_megapixels: float, seconds: float) -> tuple[bytes, bytes]:
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        worker = worker or _Worker(self._context, self._background)
        try:
            wait_seconds = max(MIN_WAIT_SECONDS, seconds * MAX_WAIT_FACTOR)
            kind, content = worker.ask(START.pack(task, max_megapixels, seconds), encoded, wait_seconds)
        except (EOFError, OSError, TimeoutError) as error:
            raise DecodingFailed(worker.end()) from error
        with self._lock:
            self._idle.append(worker)
        if kind == REASON:
            raise DecodingFailed(content.decode("ascii"))
        return kind, content


class _Worker:
    """A decoder process and the connection to it."""

    def __init__(self, context: multiprocessing.context.ForkServerContext, background: Color | None) -> None:
        self._connection, other_end = context.Pipe()
        self._process = context.Process(target=_work, args=(other_end, background), name="image decoder", daemon=True)
        self._process.start()
        other_end.close()
        try:
            is_ready = self._connection.poll(START_TIMEOUT_SECONDS) and self._connection.recv_bytes() == READY
        except EOFError:
            is_ready = False
        if not is_ready:
            self.end()
            raise TimeoutError("An image decoder did not start.")

    def ask(self, start: bytes, encoded: bytes, wait_seconds: float) -> tuple[bytes, bytes]:
        """Returns kind and content of the answer. Raises TimeoutError; EOFError or OSError if the process has ended."""
        self._connection.send_bytes(start)
        self._connection.send_bytes(encoded)
        if not self._connection.poll(wait_seconds):
            raise TimeoutError
        answer = self._connection.recv_bytes()
        return answer[:1], answer[1:]

    def end(self) -> str:
        """Ends the process and returns the reason code of the image that it worked on."""
        self._process.join(timeout=0.1)
        self._process.kill()
        self._process.join()
        exit_code = self._process.exitcode
        self._connection.close()
        self._process.close()
        return TOO_SLOW if exit_code in {-signal.SIGPROF, -signal.SIGKILL} else UNDECODABLE


def _work(connection: Connection, background: Color | None) -> None:
    """Runs in the decoder process: answers until the other end of the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    os.nice(WORKER_NICENESS)
    with contextlib.suppress(EOFError, OSError):
        connection.send_bytes(READY)
        while True:
            task, max_megapixels, seconds = START.unpack(connection.recv_bytes())
            encoded = connection.recv_bytes()
            signal.setitimer(signal.ITIMER_PROF, seconds)
            try:
                answer = SIZE + str(images.megapixels(encoded)).encode() if task == MEASURE else BITMAP
                if task == DECODE:
                    answer += _bitmap(images.decode(encoded, max_megapixels, background, ends_itself=True))
            except images.Undecodable as error:
                answer = REASON + str(error).encode("ascii", "replace")
            except MemoryError:
                answer = REASON + UNDECODABLE.encode()
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            connection.send_bytes(answer)


def _bitmap(pixels: images.Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()

"""Requests with images: measured first, then decoded, in one of two lanes, so that nobody waits for another's slow images."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio

from seedling.media.decoding_limits import TOO_SLOW
from seedling.media.image_modes import Color
from seedling.models.predictor import Question
from seedling.serving.image_workers import DecodingFailed, ImageWorkers

QUICK_MEGAPIXELS = 2.0  # of a request; 64 such requests hold 384 MB of pixels
QUICK_WORKERS = 4
LARGE_REQUESTS = 3  # at once, each of which holds up to 96 MB of pixels
MAX_SLOW_IMAGES = 2  # of a request; the others are then not tried
TOO_MANY_PIXELS = "too_many_pixels"


class TooManyPixels(ValueError):
    """The images of a request have too many pixels together."""


class ImageRequests:
    """Decodes the images of requests, one after the other of each request.

    Requests of up to `QUICK_MEGAPIXELS` megapixels have workers of their own. A request with more, or whose image took too long, is decoded
    by others.
    """

    def __init__(self, max_megapixels: float, wait_seconds: float, background: Color | None = None) -> None:
        self._max_megapixels, self._wait_seconds = max_megapixels, wait_seconds
        self._quick_workers = ImageWorkers(QUICK_WORKERS, background=background)
        self._slow_workers = ImageWorkers(LARGE_REQUESTS, background=background)
        self._room = anyio.Semaphore(LARGE_REQUESTS)

    async def warm_up(self) -> None:
        """Starts a worker."""
        await self._quick_workers.warm_up()

    def close(self) -> None:
        """Ends all workers."""
        self._quick_workers.close()
        self._slow_workers.close()

    @asynccontextmanager
    async def decoded(self, images: list[bytes]) -> AsyncIterator[tuple[list[Question], float]]:
        """The images as uncompressed bitmaps or reasons, and their megapixels together; within the block their memory is accounted for.

        Raises TooManyPixels, and TimeoutError where other requests with large images take too long.
        """
        sizes = [await self._megapixels(encoded) for encoded in images]
        megapixels = sum(size for size in sizes if isinstance(size, float))
        if megapixels > 2 * self._max_megapixels:
            raise TooManyPixels(f"The images may have {2 * self._max_megapixels:g} megapixels together.")
        async with AsyncExitStack() as stack:
            is_quick = megapixels <= QUICK_MEGAPIXELS
            if not is_quick:
                with anyio.fail_after(self._wait_seconds):
                    await self._room.acquire()
                stack.callback(self._room.release)
            questions, slow_images = list[Question](), 0
            for encoded, size in zip(images, sizes, strict=True):
                if slow_images == MAX_SLOW_IMAGES:
                    questions.append(Question("", None, TOO_SLOW))
                    continue
                workers = self._quick_workers if is_quick and not slow_images else self._slow_workers
                questions.append(await self._question(workers, encoded, size))
                slow_images += questions[-1].error == TOO_SLOW
            yield questions, megapixels

    async def _megapixels(self, encoded: bytes) -> float | str:
        try:
            return await self._quick_workers.megapixels(encoded)
        except DecodingFailed as error:
            return str(error)

    async def _question(self, workers: ImageWorkers, encoded: bytes, size: float | str) -> Question:
        if isinstance(size, str):
            return Question("", None, size)
        if size > self._max_megapixels:
            return Question("", None, TOO_MANY_PIXELS)
        try:
            return Question("", await workers.bitmap(encoded, size, self._max_megapixels))
        except DecodingFailed as error:
            return Question("", None, str(error))

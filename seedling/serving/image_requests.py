"""Decodes the images of requests in one of two worker pools, so that slow images do not delay other requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio

from seedling.media.decoding_limits import TOO_SLOW
from seedling.media.image_modes import Color
from seedling.models.predictor import Question
from seedling.serving.image_workers import DecodingFailed, ImageWorkers

QUICK_MEGAPIXELS = 2.0  # per request; 64 such requests hold 384 MB of pixels
QUICK_WORKERS = 4
MAX_LARGE_REQUESTS = 3  # at the same time; each holds up to 96 MB of pixels
MAX_SLOW_IMAGES = 2  # per request; its other images are then not decoded
TOO_MANY_PIXELS = "too_many_pixels"


class TooManyPixels(ValueError):
    """The images of a request have too many pixels in total."""


class ImageRequests:
    """Decodes the images of requests; those of one request one after the other.

    Requests of up to `QUICK_MEGAPIXELS` megapixels have their own workers. Other workers decode larger requests, and
    the remaining images of a request after one of its images took too long.
    """

    def __init__(self, max_megapixels: float, wait_seconds: float, background: Color | None = None) -> None:
        self._max_megapixels, self._wait_seconds = max_megapixels, wait_seconds
        self._quick_workers = ImageWorkers(QUICK_WORKERS, background=background)
        self._slow_workers = ImageWorkers(MAX_LARGE_REQUESTS, background=background)
        self._large_requests = anyio.Semaphore(MAX_LARGE_REQUESTS)

    async def warm_up(self) -> None:
        """Starts one worker."""
        await self._quick_workers.warm_up()

    def close(self) -> None:
        """Ends all workers."""
        self._quick_workers.close()
        self._slow_workers.close()

    @asynccontextmanager
    async def decoded(self, images: list[bytes]) -> AsyncIterator[tuple[list[Question], float]]:
        """Yields the images as uncompressed bitmaps or reason codes, and their total megapixels.

        Within the block, the request counts as one that holds pixels. Raises TooManyPixels, and TimeoutError if other
        requests with large images take too long.
        """
        sizes = [await self._megapixels(encoded) for encoded in images]
        megapixels = sum(size for size in sizes if isinstance(size, float))
        if megapixels > 2 * self._max_megapixels:
            raise TooManyPixels(
                f"The images are too large: at most {2 * self._max_megapixels:g} megapixels in total are allowed."
            )
        async with AsyncExitStack() as stack:
            is_quick = megapixels <= QUICK_MEGAPIXELS
            if not is_quick:
                with anyio.fail_after(self._wait_seconds):
                    await self._large_requests.acquire()
                stack.callback(self._large_requests.release)
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

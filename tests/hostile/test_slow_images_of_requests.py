"""An image that takes long to decode ends its own worker, and delays nobody else's request."""

from __future__ import annotations

import base64
import io
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import httpx
import numpy as np
import pytest
from http_servers import serving
from PIL import Image
from small_models import grown, image

from seedling.media import images
from seedling.media.image_metadata import ORIENTATION_TAG
from seedling.models.predictor import Predictor
from seedling.serving.api import Limits, make_app
from seedling.serving.image_requests import ImageRequests, TooManyPixels
from seedling.serving.image_workers import DecodingFailed, ImageWorkers

T = TypeVar("T")
RNG = np.random.default_rng(0)


def noise(side: int, form: str = "PNG", mode: str = "RGB", **options: object) -> bytes:
    """An image of random pixels."""
    shape = (side, side) if mode == "L" else (side, side, len(mode))
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8), mode).save(file, form, **options)
    return file.getvalue()


def with_workers(work: Callable[[ImageWorkers], Awaitable[T]], processor_seconds: float = 1.0) -> T:
    """What `work` gives of a pool of two workers."""

    async def run() -> T:
        workers = ImageWorkers(2, processor_seconds)
        try:
            return await work(workers)
        finally:
            workers.close()

    return anyio.run(run)


def test_a_worker_gives_the_same_pixels_as_the_decoder() -> None:
    """Of a PNG, a JPEG that is turned, a gray, a transparent and an animated image; and the same reason where there are none."""
    turned = Image.Exif()
    turned[ORIENTATION_TAG] = 6
    files = [
        noise(40),
        noise(40, "JPEG", exif=turned.tobytes()),
        noise(40, "PNG", "L"),
        noise(40, "WEBP", "RGBA", lossless=True),
        noise(40, "GIF", "L"),
    ]

    async def work(workers: ImageWorkers) -> None:
        for encoded in files:
            size = await workers.megapixels(encoded)
            assert size == 0.0016
            assert (images.decode(await workers.bitmap(encoded, size, 1.0)) == images.decode(encoded)).all()
        for encoded, reason in [(b"", "empty_file"), (b"no image", "undecodable"), (noise(40)[:500], "undecodable")]:
            with pytest.raises(DecodingFailed, match=reason):
                await workers.bitmap(encoded, 0.1, 1.0)
        with pytest.raises(DecodingFailed, match="too_many_pixels"):
            await workers.bitmap(noise(40), 0.0016, 0.001)

    with_workers(work)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "seconds", "options"), [(2000, 0.03, {}), (3000, 0.15, {"form": "TIFF", "compression": "tiff_lzw"})]
)
def test_a_decoder_that_takes_too_long_is_ended_and_replaced(
    side: int, seconds: float, options: dict[str, Any]
) -> None:
    """A large image of noise in a part of the processor time that it needs; the next image is decoded by another process at once.

    A compressed TIFF, which elsewhere is decoded in a process of its own, has the same limit.
    """
    large = noise(side, **options)

    async def work(workers: ImageWorkers) -> float:
        with pytest.raises(DecodingFailed, match="too_slow_to_decode"):
            await workers.bitmap(large, 0.0, 16.0)
        began = time.monotonic()
        await workers.bitmap(image(200), 0.0, 16.0)
        return time.monotonic() - began

    assert with_workers(work, seconds) < 2


def test_a_decoder_that_crashes_costs_its_image_alone() -> None:
    """The process is ended by a segmentation fault's signal; the image is called undecodable, the next one is decoded."""

    async def work(workers: ImageWorkers) -> bytes:
        await workers.warm_up()
        os.kill(workers._idle[0]._process.pid or 0, signal.SIGSEGV)
        with pytest.raises(DecodingFailed, match="undecodable"):
            await workers.bitmap(image(200), 0.1, 16.0)
        return await workers.bitmap(image(200), 0.1, 16.0)

    assert (images.decode(with_workers(work)) == images.decode(image(200))).all()


def test_a_request_has_a_limit_of_pixels_and_of_slow_images() -> None:
    """Three images of 250 pixels where 2 x 300 are allowed: refused as a whole. Of one over 300 there is the reason alone."""

    async def run() -> None:
        requests = ImageRequests(0.0003, 5.0)
        try:
            with pytest.raises(TooManyPixels):
                async with requests.decoded([noise(16)] * 3):
                    pass
            async with requests.decoded([noise(18), noise(4), b"x"]) as (questions, megapixels):
                assert [one.error for one in questions] == ["too_many_pixels", None, "undecodable"]
                assert megapixels == pytest.approx(0.00034)
        finally:
            requests.close()

    anyio.run(run)


def slow_jpeg(side: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: a few bytes each, and a pass over the whole image."""
    file = io.BytesIO()
    Image.new("L", (side, side), 128).save(file, "JPEG", progressive=True, quality=50)
    encoded = file.getvalue()
    last = encoded.rindex(b"\xff\xda")
    return encoded[:-2] + encoded[last:-2] * scans + b"\xff\xd9"


@pytest.mark.slow
@pytest.mark.parametrize("rows", [[slow_jpeg(1300, 3000)] * 16, [slow_jpeg(3900, 90)] * 2], ids=["small", "large"])
def test_slow_images_delay_nobody(tmp_path: Path, rows: list[bytes]) -> None:
    """Three requests full of slow images at once; every good request beside them is answered within a second in the median, and with its class."""
    limits = Limits(requests_per_second=10_000)
    body = {"images": [base64.b64encode(one).decode() for one in rows]}
    with serving(make_app(Predictor.of(grown(tmp_path, "image")), limits), limits.connection_limits()) as port:
        url = f"http://127.0.0.1:{port}/predict"
        good = {"images": [base64.b64encode(image(200)).decode()]}
        assert httpx.post(url, json=good, timeout=30).status_code == 200
        responses: list[httpx.Response] = []
        slow = [
            threading.Thread(target=lambda: responses.append(httpx.post(url, json=body, timeout=120))) for _ in range(3)
        ]
        for thread in slow:
            thread.start()
        seconds = []
        for _ in range(6):
            began = time.monotonic()
            found = httpx.post(url, json=good, timeout=30).json()["answers"][0]
            seconds.append(time.monotonic() - began)
            assert found["predicted"] == "sun"
            time.sleep(0.1)
        for thread in slow:
            thread.join()
    assert float(np.median(seconds)) < 1
    for response in responses:
        assert response.status_code in {200, 503}

"""An image that takes long to decode ends its own worker, and delays no other request."""

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


def with_workers(task: Callable[[ImageWorkers], Awaitable[T]], processor_seconds: float = 1.0) -> T:
    """The result of `task` with a pool of two workers."""

    async def run() -> T:
        workers = ImageWorkers(2, processor_seconds)
        try:
            return await task(workers)
        finally:
            workers.close()

    return anyio.run(run)


def test_a_worker_returns_the_same_pixels_as_the_decoder() -> None:
    """For a PNG, a rotated JPEG, and gray, transparent and animated images; and the same reason for files without
    pixels.
    """
    turned = Image.Exif()
    turned[ORIENTATION_TAG] = 6
    files = [
        noise(40),
        noise(40, "JPEG", exif=turned.tobytes()),
        noise(40, "PNG", "L"),
        noise(40, "WEBP", "RGBA", lossless=True),
        noise(40, "GIF", "L"),
    ]

    async def compare_with_the_decoder(workers: ImageWorkers) -> None:
        for encoded in files:
            size = await workers.megapixels(encoded)
            assert size == 0.0016
            assert (images.decode(await workers.bitmap(encoded, size, 1.0)) == images.decode(encoded)).all()
        for encoded, reason in [(b"", "empty_file"), (b"no image", "undecodable"), (noise(40)[:500], "undecodable")]:
            with pytest.raises(DecodingFailed, match=reason):
                await workers.bitmap(encoded, 0.1, 1.0)
        with pytest.raises(DecodingFailed, match="too_many_pixels"):
            await workers.bitmap(noise(40), 0.0016, 0.001)

    with_workers(compare_with_the_decoder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "seconds", "options"), [(2000, 0.03, {}), (3000, 0.15, {"form": "TIFF", "compression": "tiff_lzw"})]
)
def test_a_slow_decoder_is_ended_and_replaced(side: int, seconds: float, options: dict[str, Any]) -> None:
    """A large image of noise gets a part of the processor time that it needs; another process decodes the next image at
    once.

    A compressed TIFF, which elsewhere is decoded in a process of its own, has the same limit.
    """
    large = noise(side, **options)

    async def seconds_until_the_next_image(workers: ImageWorkers) -> float:
        with pytest.raises(DecodingFailed, match="too_slow_to_decode"):
            await workers.bitmap(large, 0.0, 16.0)
        began = time.monotonic()
        await workers.bitmap(image(200), 0.0, 16.0)
        return time.monotonic() - began

    assert with_workers(seconds_until_the_next_image, seconds) < 2


def test_a_decoder_that_crashes_loses_its_image_alone() -> None:
    """After a segmentation fault the image is reported as undecodable, and the next one is decoded."""

    async def crash_and_decode_again(workers: ImageWorkers) -> bytes:
        await workers.warm_up()
        os.kill(workers._idle[0]._process.pid or 0, signal.SIGSEGV)
        with pytest.raises(DecodingFailed, match="undecodable"):
            await workers.bitmap(image(200), 0.1, 16.0)
        return await workers.bitmap(image(200), 0.1, 16.0)

    assert (images.decode(with_workers(crash_and_decode_again)) == images.decode(image(200))).all()


def test_a_request_has_a_limit_on_pixels_and_on_slow_images() -> None:
    """Three images of 250 pixels where 2 x 300 are allowed are refused together.

    A single image over 300 has an error alone.
    """

    async def run() -> None:
        requests = ImageRequests(0.0003, 5.0)
        try:
            with pytest.raises(TooManyPixels):
                async with requests.decoded([noise(16)] * 3):
                    pass
            async with requests.decoded([noise(18), noise(4), b"x"]) as (questions, megapixels):
                assert [question.error for question in questions] == ["too_many_pixels", None, "undecodable"]
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
def test_slow_images_do_not_delay_other_requests(tmp_path: Path, rows: list[bytes]) -> None:
    """During three requests full of slow images, valid requests are answered correctly, with a median below one second."""
    limits = Limits(requests_per_second=10_000)
    body = {"images": [base64.b64encode(encoded).decode() for encoded in rows]}
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
            answer = httpx.post(url, json=good, timeout=30).json()["answers"][0]
            seconds.append(time.monotonic() - began)
            assert answer["predicted"] == "sun"
            time.sleep(0.1)
        for thread in slow:
            thread.join()
    assert float(np.median(seconds)) < 1
    for response in responses:
        assert response.status_code in {200, 503}

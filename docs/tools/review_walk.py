"""Record docs/images/review.webp, an animated image of a review that starts without any label.

    python docs/tools/review_walk.py

A scripted reviewer labels scikit-learn's digits in Chromium by keyboard, with the page of `seedling review`. The
accuracy in the panel rises as the model heads are fitted to the answers. Needs Debian's Chromium
(`apt-get install chromium`), and takes about two minutes.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from screenshots import IMAGES, PROJECT, browser_page
from sklearn.datasets import load_digits

from seedling.config.params import set_value
from seedling.media import images

ROWS, ANSWERS = 400, 48
MILLISECONDS_PER_ANSWER = 600  # in the image: 48 answers in 29 seconds
REFIT_AFTER = 6
WIDTH_PIXELS, HEIGHT_PIXELS = 1100, 700
WEBP_QUALITY = 35
MAX_IMAGE_BYTES = 600_000
CLASSES = [str(digit) for digit in range(10)]


def make_workspace(folder: Path) -> Path:
    """Make a workspace of digits without labels, whose file names end with the true class."""
    source, digits = folder / "digits", load_digits()
    source.mkdir()
    for number in range(ROWS):
        pixels = np.repeat((digits.images[number] / 16 * 255).astype(np.uint8)[:, :, None], 3, axis=2)
        (source / f"{number:04d}-{digits.target[number]}.png").write_bytes(images.encode(pixels))
    command = [Path(sys.executable).with_name("seedling"), "init", folder / "handwriting", "--images", source]
    subprocess.run([*command, "--labels", ",".join(CLASSES), "--encoder", "none"], check=True)
    set_value(folder / "handwriting", ["review", "refit_after"], REFIT_AFTER)
    set_value(folder / "handwriting", ["seed"], 3)
    return folder / "handwriting"


def record(page: Any, address: str) -> list[Image.Image]:
    """Label ANSWERS rows, and return an image after each answer."""
    page.set_viewport_size({"width": WIDTH_PIXELS, "height": HEIGHT_PIXELS})
    page.goto(address)
    frames = []
    for _ in range(ANSWERS):
        page.locator("body[data-painted]").wait_for()
        page.wait_for_timeout(700)  # as fast as a person, so that refits end in time
        frames.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        row_id = page.evaluate("document.body.dataset.row")
        origin = page.evaluate(
            "row => fetch(`/api/item/${row}`, {headers: {'X-Review-Token': new URLSearchParams(location.search)"
            ".get('token')}}).then(answer => answer.json()).then(item => item.origin)",
            row_id,
        )
        truth = re.search(r"-(\d)\.png$", origin)
        if truth is None:
            raise ValueError(f"The file name {origin!r} does not end with a class.")
        page.locator("#labels button", has_text=re.compile(f"^{truth[1]}")).first.click()
        page.locator(f"body[data-row='{row_id}']").wait_for(state="detached")
    frames.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    return frames


def main() -> None:
    """Record the review and write the image."""
    with tempfile.TemporaryDirectory() as temporary:
        workspace = make_workspace(Path(temporary))
        command = [Path(sys.executable).with_name("seedling"), "review", "-w", workspace, "--no-browser", "--port", "0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            output = ""
            while not (match := re.search(r"http://\S+token=\S+", output)):
                output += server.stdout.readline() if server.stdout else ""
            with browser_page() as page:
                first, *others = record(page, match[0])
        finally:
            server.terminate()
            server.wait()
    path = IMAGES / "review.webp"
    first.save(
        path,
        save_all=True,
        append_images=others,
        duration=MILLISECONDS_PER_ANSWER,
        loop=0,
        quality=WEBP_QUALITY,
        method=4,
    )
    size = path.stat().st_size
    if size > MAX_IMAGE_BYTES:
        raise ValueError(f"{path} has {size:,} bytes; the maximum is {MAX_IMAGE_BYTES:,}: lower WEBP_QUALITY.")
    print(f"{path.relative_to(PROJECT)}: {first.width}x{first.height}, {size:,} bytes", flush=True)


if __name__ == "__main__":
    main()

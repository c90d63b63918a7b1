"""Compare codecs for augmented images by time to encode and decode, and by size.

    PYTHONPATH=. python benchmarks/image_codecs.py --data ../shared/data

The images are augmented photographs in several sizes, augmented handwritten digits (each with its preset of
operations), and pages of text. One core; means over the images, medians over the repeats. Sizes are after Parquet's
zstd compression. JPEG is included for comparison: it is lossy, and each generation loses more.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image
from record import Measurement, write
from sklearn.datasets import load_digits

from seedling.augment.catalog import PRESETS
from seedling.augment.image_policy import PolicyTransform
from seedling.augment.makers import steps_of
from seedling.config.params import WorkspaceConfig
from seedling.media import images

Codec = tuple[Callable[[Any], bytes], Callable[[bytes], Any]]


def png(*flags: int) -> Codec:
    """Encode with OpenCV, gray images with one channel, and decode with the pipeline's own decoder."""

    def there(pixels: Any) -> bytes:
        source = pixels[..., 0] if images.is_gray(pixels) else pixels[..., ::-1]
        return cv2.imencode(".png", source, [*flags])[1].tobytes()

    return there, images.decode


def by_pillow(name: str, **options: Any) -> Codec:
    """Encode and decode with Pillow."""

    def there(pixels: Any) -> bytes:
        into = io.BytesIO()
        Image.fromarray(pixels[..., 0] if name == "JPEG" and images.is_gray(pixels) else pixels).save(
            into, name, **options
        )
        return into.getvalue()

    return there, lambda encoded: np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


RLE = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)
CODECS: dict[str, Codec] = {
    **{f"PNG, level {level}": png(cv2.IMWRITE_PNG_COMPRESSION, level) for level in (0, 1, 3, 6)},
    "PNG, level 1, Huffman only": png(
        cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY
    ),
    "PNG, level 1, runs": png(*RLE),
    "PNG, level 1, runs, filter sub": png(*RLE, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB),
    "PNG, level 1, runs, filter up (ours)": (images.encode, images.decode),
    "PNG, level 1, runs, filter Paeth": png(*RLE, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH),
    "QOI": by_pillow("QOI"),
    "WebP, lossless, effort 0": by_pillow("WEBP", lossless=True, method=0, quality=0),
    "JPEG, quality 95 (loses)": by_pillow("JPEG", quality=95),
}


def page(seed: int, side: int = 512) -> Any:
    """Draw lines of words, black on white."""
    rng = np.random.default_rng(seed)
    sheet = np.full((side, side, 3), 255, np.uint8)
    for line in range(20, side, 24):
        words = " ".join("".join(chr(97 + int(letter)) for letter in rng.integers(0, 26, 6)) for _ in range(6))
        cv2.putText(sheet, words, (8, line), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (20, 20, 20), 1, cv2.LINE_AA)
    return sheet


def settings(data: Path | None) -> dict[str, list[Any]]:
    """Return the images by setting."""
    images_by_setting = {
        "digits, 8 pixels": [
            cv2.merge([np.rint(digit.reshape(8, 8) * 255 / 16).astype(np.uint8)] * 3)
            for digit in load_digits().data[:200]
        ],
        "pages of text, 512 pixels": [page(seed) for seed in range(20)],
    }
    if data is not None:
        photographs = [
            images.decode(payload) for payload in pd.read_parquet(data / "trashnet/data.parquet")["image"][::25]
        ]
        for side in (32, 96, 224, 384):
            images_by_setting[f"photographs, {side} pixels"] = [
                cv2.resize(photograph, (side, side), interpolation=cv2.INTER_AREA) for photograph in photographs
            ]
    config = WorkspaceConfig(modality="image")
    for name, policy in (("digits", PRESETS["glyphs"]), ("photographs", PRESETS["photographs"])):
        change = PolicyTransform([{step.name: dict(step.arguments)} for step in steps_of(policy, config, {})])
        for setting, image_arrays in images_by_setting.items():
            if setting.startswith(name):
                images_by_setting[setting] = [change(pixels, seed) for seed, pixels in enumerate(image_arrays)]
    return images_by_setting


def main() -> None:
    """Run all settings and write results/codecs.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    command = "PYTHONPATH=. python " + " ".join(["benchmarks/image_codecs.py", *sys.argv[1:]])
    table: list[Measurement] = []
    for setting, image_arrays in settings(args.data).items():
        for name, (there, back) in CODECS.items():
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(args.repeats):
                began = time.perf_counter()
                encoded = [there(pixels) for pixels in image_arrays]
                encoded_at = time.perf_counter()
                decoded = [back(payload) for payload in encoded]
                times[0].append(1e3 * (encoded_at - began) / len(image_arrays))
                times[1].append(1e3 * (time.perf_counter() - encoded_at) / len(image_arrays))
            if "loses" not in name:
                assert all((restored == other).all() for restored, other in zip(decoded, image_arrays, strict=True))  # noqa: S101
            for metric, milliseconds in zip(("encode", "decode"), times, strict=True):
                low, middle, high = (float(quantile) for quantile in np.quantile(milliseconds, [0.25, 0.5, 0.75]))
                table.append(Measurement(setting, name, metric, middle, low, high, "ms", args.repeats, command))
            size = pa.compress(b"".join(encoded), "zstd").size / len(image_arrays)
            table.append(Measurement(setting, name, "size", size, size, size, "bytes", len(image_arrays), command))
    write("codecs", table)


if __name__ == "__main__":
    main()

"""Measure seconds, peak memory and growth of the near-duplicate search, each size in a separate process.

    python benchmarks/near_duplicates.py [--texts 10000 100000 1000000] [--images 10000 100000]

Texts are sentences of 6 to 18 words with Zipf-distributed frequencies as in English. One in fifty is a copy of
another text with one word changed. Images are hashed in advance, as validate does when it reads them: random hashes
and thumbnails, one in fifty a copy with two flipped bits. The measurement contains the search for pairs and their
grouping.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from record import Measurement, write

from seedling.validate.duplicates import Clusters, near_duplicate_images, near_duplicate_texts

SIMILARITY = 0.8


def sentences(n_texts: int) -> tuple[list[str], int]:
    """Return the texts and the number of copies among them."""
    rng = np.random.default_rng(0)
    vocabulary = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 10))) for _ in range(30_000)]
    shares = 1 / np.arange(1, len(vocabulary) + 1)
    words = rng.choice(len(vocabulary), size=n_texts * 18, p=shares / shares.sum()).reshape(n_texts, 18)
    texts = [
        " ".join(vocabulary[word_index] for word_index in row[:length])
        for row, length in zip(words, rng.integers(6, 19, n_texts), strict=True)
    ]
    copies = n_texts // 50
    for index in range(copies):
        words_of_copy = texts[index].split()
        words_of_copy[-1] = "changed"
        texts[n_texts - 1 - index] = " ".join(words_of_copy)
    return texts, copies


def joined(size: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the sets of row numbers that the pairs connect."""
    sets = Clusters(size)
    for row, other in pairs:
        sets.join(row, other)
    return sets.members()


def of_texts(n_texts: int) -> tuple[float, float, int]:
    """Return seconds, peak memory in GB, and the number of groups with two or more texts."""
    texts, _ = sentences(n_texts)
    began = time.perf_counter()
    groups = joined(n_texts, near_duplicate_texts(texts, SIMILARITY))
    return time.perf_counter() - began, peak(), sum(len(group) > 1 for group in groups)


def of_images(n_images: int) -> tuple[float, float, int]:
    """Return seconds, peak memory in GB, and the number of groups with two or more images."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, n_images, dtype=np.uint64)
    thumbnails = rng.integers(0, 256, (n_images, 768), dtype=np.uint8)
    copies = n_images // 50
    hashes[-copies:] = hashes[:copies] ^ np.uint64(0b101)
    thumbnails[-copies:] = thumbnails[:copies]
    began = time.perf_counter()
    groups = joined(n_images, near_duplicate_images(hashes, thumbnails, bits=3, difference=6.0))
    return time.perf_counter() - began, peak(), sum(len(group) > 1 for group in groups)


def peak() -> float:
    """Return the peak memory of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Run each size and write results/near_duplicates.csv."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--texts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000])
    arguments = parser.parse_args()
    command = "python benchmarks/near_duplicates.py"
    jobs: dict[str, tuple[Callable[[int], tuple[float, float, int]], list[int]]] = {
        "texts": (of_texts, arguments.texts),
        "images": (of_images, arguments.images),
    }
    measurements: list[Measurement] = []
    for kind, (measure, sizes) in jobs.items():
        seconds_by_size = []
        for n_rows in sizes:
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                seconds, gigabytes, groups = alone.submit(measure, n_rows).result()
            seconds_by_size.append(seconds)
            numbers = {
                "time": (seconds, "s"),
                "peak memory": (gigabytes, "GB"),
                "copies found": (groups / (n_rows // 50), "share"),
            }
            for metric, (value, unit) in numbers.items():
                measurements.append(
                    Measurement(f"{n_rows:,} {kind}", "Seedling", metric, value, value, value, unit, 1, command)
                )
        if len(sizes) > 1:
            growth = float(np.log(seconds_by_size[-1] / seconds_by_size[0]) / np.log(sizes[-1] / sizes[0]))
            setting = f"{kind}, {sizes[0]:,} to {sizes[-1]:,}"
            measurements.append(
                Measurement(
                    setting, "Seedling", "time grows as rows to the power", growth, growth, growth, "", 1, command
                )
            )
    write("near_duplicates", measurements)


if __name__ == "__main__":
    main()

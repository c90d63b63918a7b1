"""Near-duplicates at scale: seconds, peak memory and how they grow, for texts and for images, each size in a process of its own.

    python benchmarks/near_duplicates.py [--texts 10000 100000 1000000] [--images 10000 100000]

Texts are sentences of 6 to 18 words, drawn as words are in English (Zipf's law), one in fifty a copy of another with one word
changed. Images are hashed beforehand, as validate does when it looks at them: random hashes and thumbnails, one in fifty a copy with
two bits turned. What is measured is finding the pairs and joining them into groups.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from record import Found, write

from seedling.validate.duplicates import clusters, near_duplicate_images, near_duplicate_texts

SIMILARITY = 0.8


def sentences(many: int) -> tuple[list[str], int]:
    """The texts, and how many copies are among them."""
    rng = np.random.default_rng(0)
    vocabulary = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 10))) for _ in range(30_000)]
    shares = 1 / np.arange(1, len(vocabulary) + 1)
    words = rng.choice(len(vocabulary), size=many * 18, p=shares / shares.sum()).reshape(many, 18)
    made = [
        " ".join(vocabulary[one] for one in row[:long])
        for row, long in zip(words, rng.integers(6, 19, many), strict=True)
    ]
    copies = many // 50
    for place in range(copies):
        own = made[place].split()
        own[-1] = "changed"
        made[many - 1 - place] = " ".join(own)
    return made, copies


def of_texts(many: int) -> tuple[float, float, int]:
    """Seconds, gigabytes at most, and groups of two or more."""
    texts, _ = sentences(many)
    began = time.perf_counter()
    groups = clusters(many, near_duplicate_texts(texts, SIMILARITY))
    return time.perf_counter() - began, peak(), sum(len(one) > 1 for one in groups)


def of_images(many: int) -> tuple[float, float, int]:
    """As of_texts."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, many, dtype=np.uint64)
    thumbnails = rng.integers(0, 256, (many, 768), dtype=np.uint8)
    copies = many // 50
    hashes[-copies:] = hashes[:copies] ^ np.uint64(0b101)
    thumbnails[-copies:] = thumbnails[:copies]
    began = time.perf_counter()
    groups = clusters(many, near_duplicate_images(hashes, thumbnails, bits=3, difference=6.0))
    return time.perf_counter() - began, peak(), sum(len(one) > 1 for one in groups)


def peak() -> float:
    """Gigabytes that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Runs each size and writes results/near_duplicates.csv."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--texts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000])
    given = parser.parse_args()
    command = "python benchmarks/near_duplicates.py"
    jobs: dict[str, tuple[Callable[[int], tuple[float, float, int]], list[int]]] = {
        "texts": (of_texts, given.texts),
        "images": (of_images, given.images),
    }
    found: list[Found] = []
    for kind, (work, sizes) in jobs.items():
        took = []
        for many in sizes:
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                seconds, gigabytes, groups = alone.submit(work, many).result()
            took.append(seconds)
            numbers = {
                "time": (seconds, "s"),
                "peak memory": (gigabytes, "GB"),
                "copies found": (groups / (many // 50), "share"),
            }
            for metric, (value, unit) in numbers.items():
                found.append(Found(f"{many:,} {kind}", "Seedling", metric, value, value, value, unit, 1, command))
        if len(sizes) > 1:
            growth = float(np.log(took[-1] / took[0]) / np.log(sizes[-1] / sizes[0]))
            setting = f"{kind}, {sizes[0]:,} to {sizes[-1]:,}"
            found.append(
                Found(setting, "Seedling", "time grows as rows to the power", growth, growth, growth, "", 1, command)
            )
    write("near_duplicates", found)


if __name__ == "__main__":
    main()

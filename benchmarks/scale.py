"""Measure large simulated pools: the filters at 10 million rows, and one round with a pool of 1,000,000.

    python benchmarks/scale.py [--parts filters line] [--pools 30000 300000 1000000]

The measurements are seconds and peak resident memory, each part in a separate process. The pool's rows are short
texts without an encoder, so that the number of rows dominates, and not their features.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import Measurement, write

LABELED = 100
WORDS = np.array([f"w{n}" for n in range(3000)])


def peak() -> float:
    """Return the peak memory of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def filters(rows: int) -> tuple[float, float]:
    """Run every filter once on (rows, 10) probabilities."""
    from seedling.pseudo_label.filters import FILTERS, FilterInput

    rng = np.random.default_rng(0)
    probabilities: NDArray[Any] = rng.random((rows, 10), dtype=np.float32)
    probabilities **= 8
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    standard_deviation: NDArray[Any] = rng.random(rows, dtype=np.float32)
    agrees = standard_deviation > 0.2
    began = time.perf_counter()
    filter_input = FilterInput(probabilities, agrees, 0.5, np.zeros(10, dtype=bool), standard_deviation)
    for select in FILTERS.values():
        select(filter_input, 0.9)
    return time.perf_counter() - began, peak()


def pipeline(pool: int) -> tuple[float, float]:
    """Run one round on a pool of this size: write validate's output, then run train@0, pseudo_label@1 and train@1."""
    from seedling.dataset.generation import GenerationWriter, Row, identify
    from seedling.pipeline import find_stage
    from seedling.runner import run_stage

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = Path(__file__).parents[1] / "seedling/init/workspace_files"
        params = (template / "params.yaml.template").read_text().replace("MODALITY", "text").replace("ENCODER", "null")
        (folder / "params.yaml").write_text(params.replace("- SOURCES", "- {kind: folder}"))
        (folder / "gates.yaml").write_text((template / "gates.yaml.template").read_text())
        (folder / "data").mkdir()
        for stage in ("scrape", "validate", "augment", "synthesize"):
            n_rows = pool + LABELED if stage in {"scrape", "validate"} else 0
            rng = np.random.default_rng(0)  # the same rows in scrape and validate
            with GenerationWriter(folder / "generations" / stage, stage=stage, modality="text") as writer:
                for number in range(n_rows):
                    label = number % 2 if number < LABELED else int(rng.integers(2))
                    text = " ".join(WORDS[rng.integers(1500, size=8) + 1500 * label]) + f" {number}"
                    is_labeled, row_id = number < LABELED, identify(text.encode())
                    writer.keep(
                        Row(
                            id=row_id,
                            split="train" if is_labeled else "pool",
                            fold=number // 2 % 5 if is_labeled else None,
                            label="ab"[label] if is_labeled else None,
                            label_source="human" if is_labeled else None,
                            origin=f"rows#{number}",
                            group=row_id,
                            payload=text,
                        )
                    )
                writer.close(rows_in=n_rows, classes=["a", "b"])
        began = time.perf_counter()
        for stage in ("train@0", "pseudo_label@1", "train@1"):
            run_stage(find_stage(stage), folder)
        return time.perf_counter() - began, peak()


def alone(measure: Callable[[int], tuple[float, float]], rows: int) -> tuple[float, float]:
    """Run in a separate process, so that nothing else raises the peak."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure, rows).result()


def main() -> None:
    """Run the parts and write results/scale.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", default=["filters", "line"], choices=["filters", "line"])
    parser.add_argument("--pools", type=int, nargs="+", default=[30_000, 300_000, 1_000_000], help="rows in the pool")
    arguments = parser.parse_args()
    command = f"python benchmarks/scale.py --parts {' '.join(arguments.parts)}"
    sizes: list[tuple[str, Callable[[int], tuple[float, float]], int, str, str]] = [
        ("filters", filters, 10_000_000, "10,000,000 rows x 10 classes", "all filters")
    ]
    if "line" in arguments.parts:
        command += f" --pools {' '.join(str(pool_rows) for pool_rows in arguments.pools)}"
        sizes += [
            ("line", pipeline, rows, f"pool of {rows:,} texts, 100 labels", "train@0, pseudo_label@1, train@1")
            for rows in arguments.pools
        ]
    measurements = []
    for part, measure, rows, setting, system in sizes:
        if part in arguments.parts:
            seconds, memory = alone(measure, rows)
            measurements += [
                Measurement(setting, system, "time", seconds, seconds, seconds, "s", 1, command),
                Measurement(setting, system, "peak memory", memory, memory, memory, "GB", 1, command),
            ]
    write("scale", measurements)


if __name__ == "__main__":
    main()

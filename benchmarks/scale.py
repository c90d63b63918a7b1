"""Large pools, simulated: the filters at 10 million rows, and a round of train and pseudo_label at a pool of 1,000,000.

    python benchmarks/scale.py [--parts filters line] [--pools 30000 300000 1000000]

Seconds and the peak of resident memory (of the line, above what the process held before), each part in a process of its own. The pool's
rows are short texts without an encoder, so that the rows and not their features are what is large.
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

import numpy as np
from record import Found, write

LABELED = 100
WORDS = np.array([f"w{n}" for n in range(3000)])


def peak() -> float:
    """Gigabytes that the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def filters(rows: int) -> tuple[float, float]:
    """Every filter once over rows × 10 probabilities."""
    from seedling.pseudo_label.filters import FILTERS, FilterInput

    rng = np.random.default_rng(0)
    probabilities = rng.random((rows, 10), dtype=np.float32)
    probabilities **= 8
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    spread = rng.random(rows, dtype=np.float32)
    agrees = spread > 0.2
    began = time.perf_counter()
    seen = FilterInput(probabilities, agrees, 0.5, np.zeros(10, dtype=bool), spread)
    for judge in FILTERS.values():
        judge(seen, 0.9)
    return time.perf_counter() - began, peak()


def line(pool: int) -> tuple[float, float]:
    """One round on a pool of so many rows: validate's output is written as it would be, then train@0, pseudo_label@1, train@1."""
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
            many = pool + LABELED if stage in {"scrape", "validate"} else 0
            rng = np.random.default_rng(0)  # the same rows in both
            with GenerationWriter(folder / "generations" / stage, stage=stage, modality="text") as writer:
                for number in range(many):
                    label = number % 2 if number < LABELED else int(rng.integers(2))
                    text = " ".join(WORDS[rng.integers(1500, size=8) + 1500 * label]) + f" {number}"
                    known, one = number < LABELED, identify(text.encode())
                    writer.keep(
                        Row(
                            id=one,
                            split="train" if known else "pool",
                            fold=number // 2 % 5 if known else None,
                            label="ab"[label] if known else None,
                            label_source="human" if known else None,
                            origin=f"rows#{number}",
                            group=one,
                            payload=text,
                        )
                    )
                writer.close(rows_in=many, classes=["a", "b"])
        began = time.perf_counter()
        for stage in ("train@0", "pseudo_label@1", "train@1"):
            run_stage(find_stage(stage), folder)
        return time.perf_counter() - began, peak()


def alone(work: Callable[[int], tuple[float, float]], rows: int) -> tuple[float, float]:
    """In a process of its own, whose peak nothing else has raised."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, rows).result()


def main() -> None:
    """Runs the parts and writes results/scale.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", default=["filters", "line"], choices=["filters", "line"])
    parser.add_argument("--pools", type=int, nargs="+", default=[30_000, 300_000, 1_000_000], help="rows, of the line")
    given = parser.parse_args()
    command = f"python benchmarks/scale.py --parts {' '.join(given.parts)}"
    sizes = [("filters", filters, 10_000_000, "10,000,000 rows x 10 classes", "all filters")]
    if "line" in given.parts:
        command += f" --pools {' '.join(str(one) for one in given.pools)}"
        sizes += [
            ("line", line, rows, f"pool of {rows:,} texts, 100 labels", "train@0, pseudo_label@1, train@1")
            for rows in given.pools
        ]
    found = []
    for part, work, rows, setting, system in sizes:
        if part in given.parts:
            seconds, memory = alone(work, rows)
            found += [
                Found(setting, system, "time", seconds, seconds, seconds, "s", 1, command),
                Found(setting, system, "peak memory", memory, memory, memory, "GB", 1, command),
            ]
    write("scale", found)


if __name__ == "__main__":
    main()

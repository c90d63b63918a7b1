"""Gates at scale: seconds and peak memory of validate's default gate over a generation of texts, each size in a process of its own.

    python benchmarks/gates.py [--rows 100000 1000000 10000000]

The rows are made: ids, five classes, five folds, one in ten in the test split, a text of 60 characters each. What is measured is all
that a stage's gate does: reading the Parquet, the columns that are derived, Great Expectations with its stored result.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from record import Found, write

from tasks.gates.asking import check, load_gates, wanted_columns
from tasks.gates.columns import gated_rows
from tasks.generation import schema, write_json

A_PART = 100_000


def generation(folder: Path, many: int) -> None:
    """Writes parts and manifest as a stage would."""
    kind, parts = schema("text"), []
    for number, first in enumerate(range(0, many, A_PART)):
        rows = min(A_PART, many - first)
        ids = [f"{one:032x}" for one in range(first, first + rows)]
        numbers = np.arange(first, first + rows)
        split = np.where(numbers % 10 == 0, "test", "train")
        known = {
            "id": pa.array(ids),
            "split": pa.array(split.tolist()),
            "fold": pa.array(np.where(split == "train", numbers % 5, 0), pa.int8(), mask=split == "test"),
            "label": pa.array(np.array(["a", "b", "c", "d", "e"])[numbers % 5].tolist()),
            "weight": pa.array(np.ones(rows, np.float32)),
            "confidence": pa.array(np.ones(rows, np.float32)),
            "parents": pa.array([[]] * rows, pa.list_(pa.string())),
            "origin": pa.array([f"rows.csv#{one}" for one in numbers]),
            "group": pa.array(ids),
            "text": pa.array(["a sentence of sixty characters that says nothing in particular"] * rows),
        }
        columns = {one.name: known.get(one.name, pa.nulls(rows, one.type)) for one in kind}
        name = f"part-{number:05d}.parquet"
        pq.write_table(pa.table(columns, schema=kind), folder / name, compression="zstd")
        parts.append({"file": name, "rows": rows})
    write_json(folder / "manifest.json", {"modality": "text", "parts": parts})


def one_size(many: int) -> tuple[float, float, int]:
    """Seconds, gigabytes that the gate had at most, and checks."""
    template = Path(__file__).parents[1] / "flows/workspace_files/gates.yaml.template"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "generation"
        folder.mkdir()
        with ProcessPoolExecutor(1, get_context("spawn")) as apart:  # what making the rows takes is not the gate's
            apart.submit(generation, folder, many).result()
        (Path(place) / "gates.yaml").write_text(template.read_text(encoding="utf-8"), encoding="utf-8")
        began = time.perf_counter()
        gates = load_gates(Path(place))
        rows = gated_rows("validate", folder, wanted=wanted_columns("validate", gates))
        checks = check("validate", rows, gates, Path(place) / "documents")
        seconds = time.perf_counter() - began
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, sum(one.passed for one in checks)


def main() -> None:
    """Runs each size and writes results/gates.csv."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    given = parser.parse_args()
    command, found = "python benchmarks/gates.py", list[Found]()
    for many in given.rows:
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            seconds, gigabytes, passed = alone.submit(one_size, many).result()
        for metric, value, unit in (
            ("time", seconds, "s"),
            ("peak memory", gigabytes, "GB"),
            ("checks met", passed, ""),
        ):
            found.append(
                Found(f"{many:,} rows, validate's gate", "Seedling", metric, value, value, value, unit, 1, command)
            )
    write("gates", found)


if __name__ == "__main__":
    main()

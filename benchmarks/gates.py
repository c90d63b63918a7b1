"""Measure seconds and peak memory of validate's default gate on generations of texts.

    python benchmarks/gates.py [--rows 100000 1000000 10000000]

The rows are generated: ids, five classes, five folds, 10 % in the test split, a text of 60 characters each. The
measurement contains all that a stage's gate does: reading Parquet, deriving columns, and Great Expectations with its
stored result. The peer, also in a separate process, runs the same expectations with Great Expectations on one pandas
frame of the columns they name; pandas derives the column.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import great_expectations as gx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.registry import get_expectation_impl
from record import Measurement, write

from seedling.dataset.generation import schema
from seedling.gates.checking import REQUIRED_EXPECTATIONS, check, columns_in_gate, load_gates
from seedling.gates.columns import GateInput, gated_rows
from seedling.records.manifest import Manifest, PartFile, RowCounts
from seedling.records.stage_notes import ValidateNotes
from seedling.workspace import MANIFEST

ROWS_PER_PART = 100_000


def generation(folder: Path, n_rows: int) -> None:
    """Write parts and manifest as a stage does."""
    kind, parts = schema("text"), []
    for number, first in enumerate(range(0, n_rows, ROWS_PER_PART)):
        rows = min(ROWS_PER_PART, n_rows - first)
        ids = [f"{row_number:032x}" for row_number in range(first, first + rows)]
        numbers = np.arange(first, first + rows)
        split = np.where(numbers % 10 == 0, "test", "train")
        columns_with_values = {
            "id": pa.array(ids),
            "split": pa.array(split.tolist()),
            "fold": pa.array(np.where(split == "train", numbers % 5, 0), pa.int8(), mask=split == "test"),
            "label": pa.array(np.array(["a", "b", "c", "d", "e"])[numbers % 5].tolist()),
            "weight": pa.array(np.ones(rows, np.float32)),
            "confidence": pa.array(np.ones(rows, np.float32)),
            "parent_ids": pa.array([[]] * rows, pa.list_(pa.string())),
            "origin": pa.array([f"rows.csv#{row_number}" for row_number in numbers]),
            "group": pa.array(ids),
            "text": pa.array(["a sentence of sixty characters that says nothing in particular"] * rows),
        }
        columns = {column.name: columns_with_values.get(column.name, pa.nulls(rows, column.type)) for column in kind}
        name = f"part-{number:05d}.parquet"
        pq.write_table(pa.table(columns, schema=kind), folder / name, compression="zstd")
        parts.append(PartFile(file=name, rows=rows))
    counts = RowCounts(rows_in=n_rows, kept=n_rows, rejected=0)
    manifest = Manifest(
        stage="validate", modality="text", rows=counts, reasons={}, counts=(), parts=tuple(parts), notes=ValidateNotes()
    )
    manifest.write(folder / MANIFEST)


def on_disk(workspace: Path, folder: Path) -> int:
    """Run Seedling's gate and return the number of passed checks."""
    gates = load_gates(workspace)
    rows = gated_rows("validate", GateInput(folder), columns_in_gate("validate", gates))
    return sum(result.passed for result in check("validate", rows, gates, workspace / "documents"))


def in_memory(workspace: Path, folder: Path) -> int:
    """Run Great Expectations on one frame and return the number of passed checks."""
    parts: Any = sorted(folder.glob("part-*.parquet"))  # pandas reads a list of files, which its stubs leave out
    frame = pd.read_parquet(parts, columns=["id", "split", "label", "fold", "group"])
    held_out = frame[frame["split"].isin(["test", "validation"])].drop_duplicates("group").set_index("group")["split"]
    where = frame["group"].map(held_out)
    frame["near_duplicate_held_out_elsewhere"] = where.notna() & (where != frame["split"])
    context = gx.get_context(mode="file", project_root_dir=str(workspace))
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    expectations = [*REQUIRED_EXPECTATIONS["validate"], *load_gates(workspace)["validate"]]
    suite = gx.ExpectationSuite(
        "validate", [get_expectation_impl(name)(**arguments) for name, arguments in expectations]
    )
    batch = (
        context.data_sources.add_pandas("rows").add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
    )
    definition = gx.ValidationDefinition(name="validate", data=batch, suite=context.suites.add(suite))
    validation = context.validation_definitions.add(definition).run(
        batch_parameters={"dataframe": frame}, result_format={"result_format": "SUMMARY", "partial_unexpected_count": 5}
    )
    return sum(bool(result.success) for result in validation.results)


SYSTEMS = {"Seedling": on_disk, "Great Expectations over one frame": in_memory}


def measure_size(n_rows: int, system: str) -> tuple[float, float, int]:
    """Return seconds, peak memory in GB, and the number of passed checks."""
    template = Path(__file__).parents[1] / "seedling/init/workspace_files/gates.yaml.template"
    with tempfile.TemporaryDirectory() as workspace:
        folder = Path(workspace) / "generation"
        folder.mkdir()
        with ProcessPoolExecutor(1, get_context("spawn")) as apart:  # exclude the memory that generates the rows
            apart.submit(generation, folder, n_rows).result()
        (Path(workspace) / "gates.yaml").write_text(template.read_text(encoding="utf-8"), encoding="utf-8")
        began = time.perf_counter()
        passed = SYSTEMS[system](Path(workspace), folder)
        seconds = time.perf_counter() - began
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, passed


def main() -> None:
    """Run each size and write results/gates.csv."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    arguments = parser.parse_args()
    command, measurements = "python benchmarks/gates.py", list[Measurement]()
    for n_rows in arguments.rows:
        setting, met = f"{n_rows:,} rows, validate's gate", list[tuple[float, ...]]()
        for system in SYSTEMS:
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                met.append(alone.submit(measure_size, n_rows, system).result())
            for metric, value, unit in zip(
                ("time", "peak memory", "checks met"), met[-1], ("s", "GB", ""), strict=True
            ):
                measurements.append(Measurement(setting, system, metric, value, value, value, unit, 1, command))
        for metric, ours, theirs in zip(("time", "peak memory"), *met, strict=False):
            ratio = ours / theirs
            measurements.append(
                Measurement(
                    setting, "Seedling", f"{metric}, over one frame's", ratio, ratio, ratio, "ratio", 1, command
                )
            )
    write("gates", measurements)


if __name__ == "__main__":
    main()

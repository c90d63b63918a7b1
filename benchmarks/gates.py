"""Gates at scale: seconds and peak memory of validate's default gate over a generation of texts, each size in a process of its own.

    python benchmarks/gates.py [--rows 100000 1000000 10000000]

The rows are made: ids, five classes, five folds, one in ten in the test split, a text of 60 characters each. What is measured is all
that a stage's gate does: reading the Parquet, the columns that are derived, Great Expectations with its stored result. Beside it, in a
process of its own too: the same expectations by Great Expectations over one pandas frame of the columns that they name, whose derived
column is made by pandas.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import great_expectations as gx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.registry import get_expectation_impl
from record import Found, write

from seedling.dataset.generation import schema, write_json
from seedling.gates.checking import REQUIRED_EXPECTATIONS, check, columns_in_gate, load_gates
from seedling.gates.columns import gated_rows

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
            "parent_ids": pa.array([[]] * rows, pa.list_(pa.string())),
            "origin": pa.array([f"rows.csv#{one}" for one in numbers]),
            "group": pa.array(ids),
            "text": pa.array(["a sentence of sixty characters that says nothing in particular"] * rows),
        }
        columns = {one.name: known.get(one.name, pa.nulls(rows, one.type)) for one in kind}
        name = f"part-{number:05d}.parquet"
        pq.write_table(pa.table(columns, schema=kind), folder / name, compression="zstd")
        parts.append({"file": name, "rows": rows})
    write_json(folder / "manifest.json", {"modality": "text", "parts": parts})


def on_disk(place: Path, folder: Path) -> int:
    """Seedling's gate; gives the checks that were met."""
    gates = load_gates(place)
    rows = gated_rows("validate", folder, columns=columns_in_gate("validate", gates))
    return sum(one.passed for one in check("validate", rows, gates, place / "documents"))


def in_memory(place: Path, folder: Path) -> int:
    """Great Expectations over one frame."""
    frame = pd.read_parquet(sorted(folder.glob("part-*.parquet")), columns=["id", "split", "label", "fold", "group"])
    held_out = frame[frame["split"].isin(["test", "validation"])].drop_duplicates("group").set_index("group")["split"]
    where = frame["group"].map(held_out)
    frame["near_duplicate_held_out_elsewhere"] = where.notna() & (where != frame["split"])
    context = gx.get_context(mode="file", project_root_dir=str(place))
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    wanted = [*REQUIRED_EXPECTATIONS["validate"], *load_gates(place)["validate"]]
    suite = gx.ExpectationSuite("validate", [get_expectation_impl(name)(**given) for name, given in wanted])
    batch = (
        context.data_sources.add_pandas("rows").add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
    )
    definition = gx.ValidationDefinition(name="validate", data=batch, suite=context.suites.add(suite))
    found = context.validation_definitions.add(definition).run(
        batch_parameters={"dataframe": frame}, result_format={"result_format": "SUMMARY", "partial_unexpected_count": 5}
    )
    return sum(bool(one.success) for one in found.results)


SYSTEMS = {"Seedling": on_disk, "Great Expectations over one frame": in_memory}


def one_size(many: int, system: str) -> tuple[float, float, int]:
    """Seconds, gigabytes that the gate had at most, and checks that were met."""
    template = Path(__file__).parents[1] / "seedling/init/workspace_files/gates.yaml.template"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "generation"
        folder.mkdir()
        with ProcessPoolExecutor(1, get_context("spawn")) as apart:  # what making the rows takes is not the gate's
            apart.submit(generation, folder, many).result()
        (Path(place) / "gates.yaml").write_text(template.read_text(encoding="utf-8"), encoding="utf-8")
        began = time.perf_counter()
        passed = SYSTEMS[system](Path(place), folder)
        seconds = time.perf_counter() - began
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, passed


def main() -> None:
    """Runs each size and writes results/gates.csv."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    given = parser.parse_args()
    command, found = "python benchmarks/gates.py", list[Found]()
    for many in given.rows:
        setting, met = f"{many:,} rows, validate's gate", list[tuple[float, ...]]()
        for system in SYSTEMS:
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                met.append(alone.submit(one_size, many, system).result())
            for metric, value, unit in zip(
                ("time", "peak memory", "checks met"), met[-1], ("s", "GB", ""), strict=True
            ):
                found.append(Found(setting, system, metric, value, value, value, unit, 1, command))
        for metric, ours, theirs in zip(("time", "peak memory"), *met, strict=False):
            found.append(
                Found(setting, "Seedling", f"{metric}, over one frame's", *[ours / theirs] * 3, "ratio", 1, command)
            )
    write("gates", found)


if __name__ == "__main__":
    main()

"""Write the results of a benchmark: one CSV file per benchmark, one row per number, with its command."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).with_name("results")
PAGES = Path(__file__).parents[1] / "docs" / "benchmarks"


@dataclass(frozen=True)
class Measurement:
    """One number with its interval over n draws."""

    setting: str
    system: str
    metric: str
    value: float
    low: float
    high: float
    unit: str
    n: int
    command: str


def mean_with_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Return the mean and its 95 % bootstrap interval over draws."""
    array = np.asarray(values, dtype=float)
    rng = np.random.default_rng(seed)
    means = array[rng.integers(len(array), size=(5000, len(array)))].mean(axis=1)
    return float(array.mean()), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def table_of(results: Path) -> str:
    """Return a file of results/ as Markdown: its commands, and a table with a line per number."""
    with results.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = ["| setting | system | metric | value | 95 % interval | unit | n |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        value, low, high = (f"{float(row[name]):.4g}" for name in ("value", "low", "high"))
        interval = f"{low} to {high}" if row["n"] != "1" else ""
        lines.append(
            f"| {row['setting']} | {row['system']} | {row['metric']} | {value} | {interval} "
            f"| {row['unit']} | {row['n']} |"
        )
    commands = dict.fromkeys(f"`{row['command']}`" for row in rows)
    return "\n".join([*"\n\n".join(commands).splitlines(), "", *lines])


def show_tables() -> None:
    """Insert every table of results/ into its page of docs/benchmarks/, between its marks.

    The marks are `<!-- table: name -->` and `<!-- end -->`.
    """
    tables = {path.stem: table_of(path) for path in sorted(RESULTS.glob("*.csv"))}
    marks = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        shown = marks.sub(lambda match: f"{match[1]}{tables[match[2]]}\n{match[3]}", text)
        if shown != text:
            page.write_text(shown, encoding="utf-8")


def write(name: str, measurements: Sequence[Measurement]) -> None:
    """Write results/<name>.csv, update docs/benchmarks/, and print the rows."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Measurement)])
        for measurement in measurements:
            writer.writerow([round(cell, 4) if isinstance(cell, float) else cell for cell in astuple(measurement)])
    show_tables()
    for measurement in measurements:
        print(
            f"{measurement.setting:28} {measurement.system:28} {measurement.metric:28} {measurement.value:9.4f} "
            f"[{measurement.low:.4f}, {measurement.high:.4f}] {measurement.unit}"
        )

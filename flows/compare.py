"""`seedling compare A B`: two runs, DVC experiments or git revisions, side by side and paired."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from flows.ledger import open_ledger
from tasks.errors import InputError
from tasks.params import load
from tasks.randomness import generator
from tasks.statistics import SMALLEST, Difference, paired_difference

METRICS = ("accuracy", "macro_f1", "log_loss", "calibration_error")
DRAWS = 2000


@dataclass(frozen=True)
class Side:
    """One of the two: its metrics and predictions."""

    name: str
    metrics: dict[str, Any]
    predictions: pd.DataFrame


@dataclass(frozen=True)
class Comparison:
    """Old and new; the paired differences by metric, and the rows whose prediction turned right or wrong."""

    old: Side
    new: Side
    where: str
    same_rows: int
    differences: dict[str, Difference]
    mended: list[str]
    broken: list[str]

    @property
    def rows(self) -> list[tuple[str, int | None, int | None]]:
        """(stage, rows kept before, rows kept after)."""
        before, after = self.old.metrics["rows"], self.new.metrics["rows"]
        return [
            (stage, before.get(stage, {}).get("kept"), after.get(stage, {}).get("kept"))
            for stage in {**before, **after}
        ]


def show_comparison(workspace: Path, old: str, new: str) -> None:
    """Prints the comparison and writes reports/compare-A-B.html."""
    load(workspace)
    found = compare_sides(_side(workspace, old), _side(workspace, new))
    console = Console()
    console.print(_rows_table(found), _metrics_table(found))
    for line in sentences(found):
        console.print(line, highlight=False, soft_wrap=True)
    path = workspace / "reports" / f"compare-{_plain(old)}-{_plain(new)}.html"
    path.write_text(as_html(found), encoding="utf-8")
    console.print(f"Also as {path}", highlight=False, soft_wrap=True)


def _side(workspace: Path, revision: str) -> Side:
    """Raises InputError where there is no such revision, or it holds no finished run."""
    files = open_ledger(workspace).files_at(
        None if revision == "workspace" else revision, ["reports/metrics.json", "reports/predictions.parquet"]
    )
    missing = [name for name, content in files.items() if content is None]
    if missing:
        raise InputError(f"'{revision}' has no {missing[0]}: its run did not finish, or `dvc pull` is needed.")
    metrics = json.loads(files["reports/metrics.json"] or b"")
    return Side(revision, metrics, pd.read_parquet(io.BytesIO(files["reports/predictions.parquet"] or b"")))


def compare_sides(old: Side, new: Side) -> Comparison:
    """Pairs the rows that both judged, by id. Raises InputError where the classes differ or no row is shared."""
    if {one["class"] for one in old.metrics["per_class"]} != {one["class"] for one in new.metrics["per_class"]}:
        raise InputError(f"'{old.name}' and '{new.name}' have other classes: their metrics cannot be compared.")
    both = old.predictions.merge(new.predictions, on="id", suffixes=("_old", "_new"))
    both = both[both["label_old"] == both["label_new"]]
    if both.empty:
        raise InputError(f"'{old.name}' and '{new.name}' judged no row in common: their test splits differ.")
    classes = [one["class"] for one in new.metrics["per_class"]]
    truth = np.array([classes.index(label) for label in both["label_new"]])
    chances = [np.stack(both[f"probabilities_{side}"].to_numpy()).astype(np.float64) for side in ("old", "new")]
    right = [one.argmax(axis=1) == truth for one in chances]
    losses = [-np.log(np.maximum(one[np.arange(len(truth)), truth], SMALLEST)) for one in chances]
    groups = both["group_new"].to_numpy(dtype=str)
    differences = {
        "accuracy": paired_difference(
            right[0].astype(float),
            right[1].astype(float),
            groups,
            larger_is_better=True,
            draws=DRAWS,
            rng=generator(0, "compare"),
        ),
        "log_loss": paired_difference(
            losses[0], losses[1], groups, larger_is_better=False, draws=DRAWS, rng=generator(0, "compare")
        ),
    }
    where = "test" if old.metrics["test"] and new.metrics["test"] else "cross_validation"
    mended, broken = both["id"][~right[0] & right[1]].tolist(), both["id"][right[0] & ~right[1]].tolist()
    return Comparison(old, new, where, len(both), differences, mended, broken)


def _rows_table(found: Comparison) -> Table:
    table = Table(box=None, title="Rows kept", title_justify="left", padding=(0, 2, 0, 0))
    for name in ("stage", found.old.name, found.new.name):
        table.add_column(name, justify="left" if name == "stage" else "right", header_style="dim")
    for stage, before, after in found.rows:
        style = "" if before == after else "yellow"
        table.add_row(stage, *("–" if one is None else f"{one:,}" for one in (before, after)), style=style)
    return table


def _metrics_table(found: Comparison) -> Table:
    table = Table(
        box=None, title=f"Metrics ({found.where.replace('_', '-')})", title_justify="left", padding=(0, 2, 0, 0)
    )
    for name in ("metric", found.old.name, found.new.name, "difference, paired"):
        table.add_column(name, header_style="dim")
    for metric, *sides, difference in metric_rows(found):
        table.add_row(metric, *sides, difference)
    return table


def metric_rows(found: Comparison) -> list[tuple[str, str, str, str]]:
    """Metric, old and new with intervals, paired difference with its interval."""

    def shown(side: Side, metric: str) -> str:
        one = side.metrics[found.where][metric]
        return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"

    def paired(metric: str) -> str:
        one = found.differences.get(metric)
        return f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]" if one else ""

    return [
        (metric.replace("_", " "), shown(found.old, metric), shown(found.new, metric), paired(metric))
        for metric in METRICS
    ]


def sentences(found: Comparison) -> list[str]:
    """What the numbers say."""
    accuracy = found.differences["accuracy"]
    if accuracy.low > 0:
        verdict = "The new one is better: the interval of the paired difference is above zero."
    elif accuracy.high < 0:
        verdict = "The new one is worse: the interval of the paired difference is below zero."
    else:
        verdict = "No difference that these rows can show: the interval of the paired difference holds zero."
    turned = f"{len(found.mended)} of {found.same_rows} rows turned right, {len(found.broken)} turned wrong"
    return [verdict, turned + (f" ({', '.join(found.broken[:5])} …)" if found.broken else "") + "."]


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ found.old.name }} and {{ found.new.name }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2.5rem auto; padding: 0 1.25rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin: .5rem 0 2rem; }
th, td { text-align: left; padding: .4rem .6rem; border-bottom: 1px solid #8884; } th { font-weight: 500; opacity: .7; }
.changed { color: #1f7a4d; font-weight: 600; } h1 { font-size: 1.5rem; } .scroll { overflow-x: auto; }
</style></head><body>
<h1>{{ found.old.name }} → {{ found.new.name }}</h1>
{% for line in lines %}<p>{{ line }}</p>{% endfor %}
<h2>Metrics <small>({{ found.where|replace("_", "-") }})</small></h2>
<div class="scroll"><table><tr><th>Metric</th><th>{{ found.old.name }}</th><th>{{ found.new.name }}</th><th>Difference, paired</th></tr>
{% for metric in metrics %}<tr>{% for cell in metric %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</table></div>
<h2>Rows kept</h2>
<div class="scroll"><table><tr><th>Stage</th><th>{{ found.old.name }}</th><th>{{ found.new.name }}</th></tr>
{% for stage, before, after in found.rows %}<tr{% if before != after %} class="changed"{% endif %}><td>{{ stage }}</td>
<td>{{ "–" if before is none else before }}</td><td>{{ "–" if after is none else after }}</td></tr>{% endfor %}</table></div>
</body></html>
"""


def as_html(found: Comparison) -> str:
    """The comparison as one self-contained page."""
    page = jinja2.Environment(autoescape=True).from_string(PAGE)
    return page.render(found=found, lines=sentences(found), metrics=metric_rows(found))

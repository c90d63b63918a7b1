"""`seedling compare A B`: two runs, DVC experiments or git revisions, side by side and paired."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from seedling.config.params import load
from seedling.dataset.generation import read, read_rejected
from seedling.errors import InputError
from seedling.files.own_folders import check_own_folders
from seedling.files.reading import reading
from seedling.files.yaml_files import parse_yaml
from seedling.records.results import parse_evaluation
from seedling.report.pages import environment
from seedling.stats.randomness import generator
from seedling.stats.statistics import Difference, briers, difference_if_wrong, log_losses, of_truth, paired_difference
from seedling.terminal.console import PrintableConsole
from seedling.versioning.ledger import open_ledger

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "top_3_accuracy",
    "steps_off",
    "log_loss",
    "brier",
    "calibration_error",
)
SMALLER_IS_BETTER = {"log_loss", "brier"}
SURENESS = (
    ("log_loss", "Its probabilities fit better (log-loss).", "Its probabilities fit worse (log-loss)."),
    ("brier", "Its probabilities fit better (Brier).", "Its probabilities fit worse (Brier)."),
)
DRAWS = 2000
EXAMPLES = 5
RESULTS = ["reports/evaluation.json", "reports/metrics.json"]
NEEDED = ["reports/predictions.parquet", "params.yaml"]


@dataclass(frozen=True)
class Side:
    """One of the two: its metrics, predictions and params; rows: what validate kept and rejected, by id, None where that is gone."""

    name: str
    metrics: dict[str, Any]
    predictions: pd.DataFrame
    params: dict[str, Any] = field(default_factory=dict)
    rows: pd.DataFrame | None = None


@dataclass(frozen=True)
class Change:
    """Rows of which the same happened between the two, with the origins of a few."""

    what: str
    count: int
    examples: list[str]


@dataclass(frozen=True)
class Comparison:
    """Old and new; the paired differences by metric; params that differ; what became of the rows; and the origins of the rows whose
    prediction turned right or wrong.
    """

    old: Side
    new: Side
    where: str
    same_rows: int
    differences: dict[str, Difference]
    params: list[tuple[str, str, str]]
    changes: list[Change] | None
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
    check_own_folders(workspace)
    found = compare_sides(_side(workspace, old), _side(workspace, new))
    console = PrintableConsole()
    console.print(_metrics_table(found))
    for line in sentences(found):
        console.print(line, highlight=False, soft_wrap=True)
    console.print()
    console.print(_rows_table(found))
    for change in found.changes or []:
        console.print(_told(change), highlight=False, soft_wrap=True, markup=False)
    if found.params:
        console.print(_params_table(found))
    path = workspace / "reports" / f"compare-{_plain(old)}-{_plain(new)}.html"
    path.write_text(as_html(found), encoding="utf-8")
    console.print(f"Also as {path}", highlight=False, soft_wrap=True)


def _side(workspace: Path, revision: str) -> Side:
    """Raises InputError where there is no such revision, or it holds no finished run."""
    ledger, place = open_ledger(workspace), None if revision == "workspace" else revision
    if place is None and (stale := sorted(name for name, state in ledger.states().items() if state == "changed")):
        raise InputError(
            f"The workspace's numbers are of before {', '.join(stale)} changed: `seedling run` first, or name a finished run instead."
        )
    files = ledger.files_at(place, [*RESULTS, *NEEDED])
    with reading(Path(RESULTS[0])):
        results = parse_evaluation(*(files[name] for name in RESULTS))
    missing = [name for name in NEEDED if files[name] is None] + (RESULTS[:1] if results is None else [])
    if missing or results is None:
        raise InputError(
            f"'{revision}' has no {missing[0]}: no run finished there (`seedling run`), or its files are elsewhere (`dvc pull`); `dvc exp list` and "
            ".seedling/runs name the runs that did."
        )
    content = {name: one or b"" for name, one in files.items()}
    with reading(Path("reports/predictions.parquet")):
        predictions = pd.read_parquet(io.BytesIO(content["reports/predictions.parquet"]))
    with tempfile.TemporaryDirectory() as scratch:
        folder = ledger.folder_at(place, "generations/validate", Path(scratch))
        rows = None if folder is None else _rows_of(folder)
    params = parse_yaml(
        content["params.yaml"].decode(encoding="utf-8", errors="replace"), f"params.yaml of '{revision}'"
    )
    return Side(revision, results, predictions, params, rows)


def _rows_of(folder: Path) -> pd.DataFrame:
    """What validate kept and rejected, by id: label, split, origin, reason."""
    columns = ["id", "label", "split", "origin"]
    both = [read(folder, columns).assign(reason=None), read_rejected(folder, [*columns, "reason"])]
    return pd.concat([one.astype(object) for one in both]).drop_duplicates("id").set_index("id")


def _check_alike(old: Side, new: Side) -> None:
    """Raises InputError where the classes differ, or one was judged on test rows and the other by cross-validation."""
    before, after = ({one["class"] for one in side.metrics["per_class"]} for side in (old, new))
    if before != after:
        alone = [
            f"only '{name}' has {', '.join(sorted(some)[:3])}{' …' if len(some) > 3 else ''}"
            for name, some in ((old.name, before - after), (new.name, after - before))
            if some
        ]
        raise InputError(
            f"'{old.name}' and '{new.name}' have other classes ({'; '.join(alone)}), so their metrics cannot be compared: compare runs of the same "
            "classes, or look at the two reports side by side."
        )
    if bool(old.metrics["test"]) != bool(new.metrics["test"]):
        without = old.name if new.metrics["test"] else new.name
        raise InputError(
            f"'{without}' has no test split and the other one has: one was judged by cross-validation, the other on test rows, which cannot be compared."
        )


def compare_sides(old: Side, new: Side) -> Comparison:
    """Pairs the rows that both judged, by id. Raises InputError where the classes differ or no row is shared."""
    _check_alike(old, new)
    both = old.predictions.merge(new.predictions, on="id", suffixes=("_old", "_new"))
    both = both[both["label_old"] == both["label_new"]].reset_index(drop=True)
    if both.empty:
        raise InputError(f"'{old.name}' and '{new.name}' judged no row in common: their test splits differ.")
    classes = [one["class"] for one in new.metrics["per_class"]]
    truth = np.array([classes.index(label) for label in both["label_new"]])
    chances = [np.stack(both[f"probabilities_{side}"].to_numpy()).astype(np.float64) for side in ("old", "new")]
    right = [one.argmax(axis=1) == truth for one in chances]
    scores = {
        "accuracy": ([one.astype(float) for one in right], 1.0),
        **{
            name: (
                [of_truth(scores(one), truth) for one in chances],
                difference_if_wrong(chances[0], chances[1], scores),
            )
            for name, scores in (("log_loss", log_losses), ("brier", briers))
        },
    }
    groups = both["group_new"].to_numpy(dtype=str)
    differences = {
        name: paired_difference(
            pair[0],
            pair[1],
            groups,
            larger_is_better=name not in SMALLER_IS_BETTER,
            draws=DRAWS,
            rng=generator(0, "compare"),  # the same draws for each
            wrong=wrong,
        )
        for name, (pair, wrong) in scores.items()
    }
    where = "test" if old.metrics["test"] and new.metrics["test"] else "cross_validation"
    origins = both["origin_new"].fillna(both["id"])
    return Comparison(
        old=old,
        new=new,
        where=where,
        same_rows=len(both),
        differences=differences,
        params=changed_params(old.params, new.params),
        changes=None if old.rows is None or new.rows is None else changed_rows(old.rows, new.rows),
        mended=origins[~right[0] & right[1]].tolist(),
        broken=origins[right[0] & ~right[1]].tolist(),
    )


def changed_params(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name with dots, old value, new value) of each that differs, as params.yaml says it, "not named" where it does not."""
    before, after = dict(_flat(old)), dict(_flat(new))

    def said(values: Mapping[str, Any], name: str) -> str:
        if name not in values:
            return "not named"
        return "null" if values[name] is None else str(values[name])

    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [(name, said(before, name), said(after, name)) for name in names]


def _flat(params: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def changed_rows(old: pd.DataFrame, new: pd.DataFrame) -> list[Change]:
    """What became of the rows that validate had, by what happened and why, the most frequent first.

    old, new: by id, with label, split, origin, and the reason of those that were rejected.
    """
    both = old.join(new, how="outer", lsuffix="_old", rsuffix="_new", validate="1:1")
    there = [both[f"origin_{side}"].notna() | both[f"split_{side}"].notna() for side in ("old", "new")]
    kept = [there[place] & both[f"reason_{side}"].isna() for place, side in enumerate(("old", "new"))]
    happened = pd.Series([""] * len(both), index=both.index, dtype=object)
    labels = [both[f"label_{side}"].fillna("none").astype(str) for side in ("old", "new")]
    splits = [both[f"split_{side}"].astype(str) for side in ("old", "new")]
    reasons = [both[f"reason_{side}"].astype(str).str.replace("_", " ") for side in ("old", "new")]
    stayed = kept[0] & kept[1]
    for rows, words in (
        (stayed & (splits[0] != splits[1]), "moved from " + splits[0] + " to " + splits[1]),
        (stayed & (labels[0] != labels[1]), "relabeled from " + labels[0] + " to " + labels[1]),
        (kept[1] & ~there[0], "added, " + splits[1]),
        (kept[0] & ~there[1], "removed, " + splits[0]),
        (kept[1] & there[0] & ~kept[0], "kept again, was " + reasons[0]),
        (there[1] & ~kept[1] & (kept[0] | ~there[0]), "rejected: " + reasons[1]),
    ):
        happened[rows] = words[rows]
    origins = both["origin_new"].fillna(both["origin_old"]).astype(str)
    found = [
        Change(str(what), len(rows), sorted(origins[rows.index])[:EXAMPLES])
        for what, rows in happened[happened != ""].groupby(happened)
    ]
    return sorted(found, key=lambda one: (-one.count, one.what))


def _told(change: Change) -> str:
    more = " …" if change.count > len(change.examples) else ""
    return f"  {change.count:,} {'row' if change.count == 1 else 'rows'} {change.what} ({', '.join(change.examples)}{more})"


def _params_table(found: Comparison) -> Table:
    table = Table(box=None, title="Params", title_justify="left", padding=(0, 2, 0, 0))
    for name in ("name", found.old.name, found.new.name):
        table.add_column(name, header_style="dim")
    for name, *values in found.params:
        table.add_row(name, *values)
    return table


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
        table.add_column(name, header_style="dim", overflow="fold")
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

    both = (found.old.metrics[found.where], found.new.metrics[found.where])
    return [
        (metric.replace("_", " "), shown(found.old, metric), shown(found.new, metric), paired(metric))
        for metric in METRICS
        if all(one.get(metric) for one in both)
    ]


def sentences(found: Comparison) -> list[str]:
    """What the numbers say."""
    accuracy = found.differences["accuracy"]
    if accuracy.low > 0:
        round_decision = "The new one is right more often: the interval of the paired difference is above zero."
    elif accuracy.high < 0:
        round_decision = "The new one is right less often: the interval of the paired difference is below zero."
    else:
        round_decision = (
            "No difference in accuracy that these rows can show: the interval of the paired difference holds zero."
        )
    for name, better, worse in SURENESS:
        one = found.differences[name]
        if one.high < 0 or one.low > 0:
            round_decision += f" {better if one.high < 0 else worse}"
            break
    turned = f"{len(found.mended)} of {found.same_rows} rows turned right, {len(found.broken)} turned wrong"
    return [round_decision, turned + (f" ({', '.join(found.broken[:5])} …)" if found.broken else "") + "."]


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)


def as_html(found: Comparison) -> str:
    """The comparison as one self-contained page."""
    page = environment("compare.html.jinja").get_template("compare.html.jinja")
    return page.render(found=found, lines=sentences(found), metrics=metric_rows(found), told=_told)

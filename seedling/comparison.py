"""`seedling compare A B`: compares two runs, DVC experiments or git revisions, with paired differences."""

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
from seedling.dataset.class_indices import class_indices
from seedling.dataset.generation import read, read_rejected
from seedling.errors import InputError
from seedling.files.own_folders import check_own_folders
from seedling.files.reading import reading
from seedling.files.yaml_files import parse_yaml
from seedling.records.evaluation import EvaluatedSplit, EvaluationSummary
from seedling.records.intervals import EstimateRecord
from seedling.records.results import parse_evaluation_summary
from seedling.report.pages import environment
from seedling.stats.randomness import generator
from seedling.stats.statistics import Difference, briers, difference_if_wrong, log_losses, of_truth, paired_difference
from seedling.terminal.console import PrintableConsole
from seedling.versioning.ledger import open_ledger
from seedling.workspace import EVALUATION, GENERATIONS, METRICS, PARAMS_FILE, PREDICTIONS, REPORTS, Workspace

COMPARED_METRICS = (
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
PROBABILITY_SENTENCES = (  # metric, sentence if it is better, sentence if it is worse
    ("log_loss", "Its probabilities fit better (log-loss).", "Its probabilities fit worse (log-loss)."),
    ("brier", "Its probabilities fit better (Brier).", "Its probabilities fit worse (Brier)."),
)
BOOTSTRAP_DRAWS = 2000
MAX_EXAMPLES = 5
RESULT_FILES = [f"{REPORTS}/{EVALUATION}", f"{REPORTS}/{METRICS}"]
PREDICTIONS_FILE = f"{REPORTS}/{PREDICTIONS}"
REQUIRED_FILES = [PREDICTIONS_FILE, PARAMS_FILE]


@dataclass(frozen=True)
class Side:
    """One of the two runs: its results, predictions and params.

    rows: the rows that validate kept or rejected, by id; None if they are no longer available.
    """

    name: str
    results: EvaluationSummary
    predictions: pd.DataFrame
    params: dict[str, Any] = field(default_factory=dict)
    rows: pd.DataFrame | None = None


@dataclass(frozen=True)
class Change:
    """Rows that changed in the same way between the two runs, with the origins of a few of them."""

    what: str
    count: int
    examples: list[str]


@dataclass(frozen=True)
class Comparison:
    """Two runs and their differences.

    differences: paired differences by metric; params: (name, old, new) of the params that differ; changes: of the rows;
    fixed, broken: origins of the rows whose prediction became right or wrong.
    """

    old: Side
    new: Side
    where: EvaluatedSplit
    same_rows: int
    differences: dict[str, Difference]
    params: list[tuple[str, str, str]]
    changes: list[Change] | None
    fixed: list[str]
    broken: list[str]

    @property
    def rows(self) -> list[tuple[str, int | None, int | None]]:
        """(stage, rows kept before, rows kept after)."""
        before, after = self.old.results, self.new.results
        return [(stage, before.kept(stage), after.kept(stage)) for stage in {**before.rows, **after.rows}]


def show_comparison(workspace: Path, old: str, new: str) -> None:
    """Prints the comparison and writes reports/compare-A-B.html."""
    load(workspace)
    check_own_folders(workspace)
    comparison = compare_sides(_side(workspace, old), _side(workspace, new))
    console = PrintableConsole()
    console.print(_metrics_table(comparison))
    for line in sentences(comparison):
        console.print(line, highlight=False, soft_wrap=True)
    console.print()
    console.print(_rows_table(comparison))
    for change in comparison.changes or []:
        console.print(_change_line(change), highlight=False, soft_wrap=True, markup=False)
    if comparison.params:
        console.print(_params_table(comparison))
    path = Workspace(workspace).comparison_page(_file_name_part(old), _file_name_part(new))
    path.write_text(as_html(comparison), encoding="utf-8")
    console.print(f"Page: {path}", highlight=False, soft_wrap=True)


def _side(workspace: Path, name: str) -> Side:
    """Reads one side. Raises InputError if the revision does not exist or contains no finished run."""
    ledger, revision = open_ledger(workspace), None if name == "workspace" else name
    if revision is None and (
        changed := sorted(stage for stage, state in ledger.states().items() if state == "changed")
    ):
        raise InputError(
            f"The results of the workspace are stale: {', '.join(changed)} changed since the last run. Run "
            "`seedling run` first, or name a finished run instead."
        )
    files = ledger.files_at(revision, [*RESULT_FILES, *REQUIRED_FILES])
    with reading(Path(RESULT_FILES[0])):
        results = parse_evaluation_summary(*(files[path] for path in RESULT_FILES))
    missing = [path for path in REQUIRED_FILES if files[path] is None] + (RESULT_FILES[:1] if results is None else [])
    if missing or results is None:
        raise InputError(
            f"'{name}' has no {missing[0]}: no run finished there (`seedling run`), or its files are in a remote "
            "(`dvc pull`). `dvc exp list` and .seedling/runs list the finished runs."
        )
    contents = {path: content or b"" for path, content in files.items()}
    with reading(Path(PREDICTIONS_FILE)):
        predictions = pd.read_parquet(io.BytesIO(contents[PREDICTIONS_FILE]))
    with tempfile.TemporaryDirectory() as scratch:
        folder = ledger.folder_at(revision, f"{GENERATIONS}/validate", Path(scratch))
        rows = None if folder is None else _rows_of(folder)
    params = parse_yaml(contents[PARAMS_FILE].decode(encoding="utf-8", errors="replace"), f"{PARAMS_FILE} of '{name}'")
    return Side(name, results, predictions, params, rows)


def _rows_of(folder: Path) -> pd.DataFrame:
    """The rows that validate kept or rejected, by id: label, split, origin, reason."""
    columns = ["id", "label", "split", "origin"]
    frames = [read(folder, columns).assign(reason=None), read_rejected(folder, [*columns, "reason"])]
    return pd.concat([frame.astype(object) for frame in frames]).drop_duplicates("id").set_index("id")


def _check_comparable(old: Side, new: Side) -> None:
    """Raises InputError if the classes differ, or only one side was evaluated on test rows."""
    before, after = ({result.name for result in side.results.per_class} for side in (old, new))
    if before != after:
        differences = [
            f"only '{name}' has {', '.join(sorted(classes)[:3])}{' …' if len(classes) > 3 else ''}"
            for name, classes in ((old.name, before - after), (new.name, after - before))
            if classes
        ]
        raise InputError(
            f"'{old.name}' and '{new.name}' have different classes ({'; '.join(differences)}), so their metrics cannot "
            "be compared. Compare runs with the same classes, or read the two reports side by side."
        )
    if bool(old.results.test) != bool(new.results.test):
        without = old.name if new.results.test else new.name
        raise InputError(
            f"'{without}' has no test split and the other run has one. One was evaluated by cross-validation, the "
            "other on test rows, so they cannot be compared."
        )


def compare_sides(old: Side, new: Side) -> Comparison:
    """Pairs the rows that both were evaluated on, by id.

    Raises InputError if the classes differ or the two have no row in common.
    """
    _check_comparable(old, new)
    both = old.predictions.merge(new.predictions, on="id", suffixes=("_old", "_new"))
    both = both[both["label_old"] == both["label_new"]].reset_index(drop=True)
    if both.empty:
        raise InputError(f"'{old.name}' and '{new.name}' have no evaluation row in common: their test splits differ.")
    classes = [result.name for result in new.results.per_class]
    truth = class_indices(both["label_new"], classes)
    probabilities = [np.stack(both[f"probabilities_{side}"].tolist()).astype(np.float64) for side in ("old", "new")]
    right = [of_side.argmax(axis=1) == truth for of_side in probabilities]
    scores = {"accuracy": ([of_side.astype(float) for of_side in right], 1.0)}
    for name, row_scores in (("log_loss", log_losses), ("brier", briers)):
        pair = [of_truth(row_scores(of_side), truth) for of_side in probabilities]
        scores[name] = (pair, difference_if_wrong(probabilities[0], probabilities[1], row_scores))
    groups = both["group_new"].to_numpy(dtype=str)
    differences = {
        name: paired_difference(
            pair[0],
            pair[1],
            groups,
            larger_is_better=name not in SMALLER_IS_BETTER,
            draws=BOOTSTRAP_DRAWS,
            rng=generator(0, "compare"),  # the same draws for each metric
            wrong=wrong,
        )
        for name, (pair, wrong) in scores.items()
    }
    origins = both["origin_new"].fillna(both["id"])
    return Comparison(
        old=old,
        new=new,
        where="test" if old.results.test and new.results.test else "cross_validation",
        same_rows=len(both),
        differences=differences,
        params=changed_params(old.params, new.params),
        changes=None if old.rows is None or new.rows is None else changed_rows(old.rows, new.rows),
        fixed=origins[~right[0] & right[1]].tolist(),
        broken=origins[right[0] & ~right[1]].tolist(),
    )


def changed_params(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(dotted name, old value, new value) of each param that differs; "not set" if params.yaml does not contain it."""
    before, after = dict(_flatten(old)), dict(_flatten(new))

    def as_text(values: Mapping[str, Any], name: str) -> str:
        if name not in values:
            return "not set"
        return "null" if values[name] is None else str(values[name])

    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [(name, as_text(before, name), as_text(after, name)) for name in names]


def _flatten(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def changed_rows(old: pd.DataFrame, new: pd.DataFrame) -> list[Change]:
    """The changes of validate's rows with their reason, the most frequent first.

    old, new: by id, with label, split, origin, and the reason of the rejected rows.
    """
    suffixes = ("_old", "_new")
    both = old.merge(new, how="outer", left_index=True, right_index=True, suffixes=suffixes, validate="1:1")
    sides = ("old", "new")
    exists = [both[f"origin_{side}"].notna() | both[f"split_{side}"].notna() for side in sides]
    kept = [exists[index] & both[f"reason_{side}"].isna() for index, side in enumerate(sides)]
    change_of_row = pd.Series([""] * len(both), index=both.index, dtype=object)
    labels = [both[f"label_{side}"].fillna("none").astype(str) for side in sides]
    splits = [both[f"split_{side}"].astype(str) for side in sides]
    reasons = [both[f"reason_{side}"].astype(str).str.replace("_", " ") for side in sides]
    stayed = kept[0] & kept[1]
    for rows, words in (
        (stayed & (splits[0] != splits[1]), "moved from " + splits[0] + " to " + splits[1]),
        (stayed & (labels[0] != labels[1]), "relabeled from " + labels[0] + " to " + labels[1]),
        (kept[1] & ~exists[0], "added, " + splits[1]),
        (kept[0] & ~exists[1], "removed, " + splits[0]),
        (kept[1] & exists[0] & ~kept[0], "kept again, was " + reasons[0]),
        (exists[1] & ~kept[1] & (kept[0] | ~exists[0]), "rejected: " + reasons[1]),
    ):
        change_of_row[rows] = words[rows]
    origins = both["origin_new"].fillna(both["origin_old"]).astype(str)
    changes = [
        Change(str(what), len(rows), sorted(origins[rows.index])[:MAX_EXAMPLES])
        for what, rows in change_of_row[change_of_row != ""].groupby(change_of_row)
    ]
    return sorted(changes, key=lambda change: (-change.count, change.what))


def _change_line(change: Change) -> str:
    more = " …" if change.count > len(change.examples) else ""
    rows = "row" if change.count == 1 else "rows"
    return f"  {change.count:,} {rows} {change.what} ({', '.join(change.examples)}{more})"


def _params_table(comparison: Comparison) -> Table:
    table = Table(box=None, title="Params", title_justify="left", padding=(0, 2, 0, 0))
    for name in ("name", comparison.old.name, comparison.new.name):
        table.add_column(name, header_style="dim")
    for name, *values in comparison.params:
        table.add_row(name, *values)
    return table


def _rows_table(comparison: Comparison) -> Table:
    table = Table(box=None, title="Rows kept", title_justify="left", padding=(0, 2, 0, 0))
    for name in ("stage", comparison.old.name, comparison.new.name):
        table.add_column(name, justify="left" if name == "stage" else "right", header_style="dim")
    for stage, before, after in comparison.rows:
        style = "" if before == after else "yellow"
        table.add_row(stage, *("–" if count is None else f"{count:,}" for count in (before, after)), style=style)
    return table


def _metrics_table(comparison: Comparison) -> Table:
    table = Table(
        box=None, title=f"Metrics ({comparison.where.replace('_', '-')})", title_justify="left", padding=(0, 2, 0, 0)
    )
    for name in ("metric", comparison.old.name, comparison.new.name, "difference, paired"):
        table.add_column(name, header_style="dim", overflow="fold")
    for row in metric_rows(comparison):
        table.add_row(*row)
    return table


def metric_rows(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    """Metric, old and new value with intervals, paired difference with its interval."""

    def paired(metric: str) -> str:
        difference = comparison.differences.get(metric)
        return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]" if difference else ""

    before, after = (side.results.metrics_of(comparison.where) for side in (comparison.old, comparison.new))
    return [
        (metric.replace("_", " "), _with_interval(old), _with_interval(new), paired(metric))
        for metric in COMPARED_METRICS
        if before and after and (old := before.estimate(metric)) and (new := after.estimate(metric))
    ]


def _with_interval(estimate: EstimateRecord) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def sentences(comparison: Comparison) -> list[str]:
    """The result of the comparison in two sentences or three."""
    accuracy = comparison.differences["accuracy"]
    if accuracy.low > 0:
        result = "The new run is right more often: the interval of the paired difference is above zero."
    elif accuracy.high < 0:
        result = "The new run is right less often: the interval of the paired difference is below zero."
    else:
        result = "No significant difference in accuracy: the interval of the paired difference contains zero."
    for name, better, worse in PROBABILITY_SENTENCES:
        difference = comparison.differences[name]
        if difference.high < 0 or difference.low > 0:
            result += f" {better if difference.high < 0 else worse}"
            break
    changed = (
        f"{len(comparison.fixed)} of {comparison.same_rows} rows became right, {len(comparison.broken)} became wrong"
    )
    examples = f" ({', '.join(comparison.broken[:5])} …)" if comparison.broken else ""
    return [result, f"{changed}{examples}."]


def _file_name_part(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)


def as_html(comparison: Comparison) -> str:
    """The comparison as one self-contained page."""
    page = environment("compare.html.jinja").get_template("compare.html.jinja")
    return page.render(
        comparison=comparison,
        lines=sentences(comparison),
        metrics=metric_rows(comparison),
        change_lines=[_change_line(change) for change in comparison.changes or []],
    )

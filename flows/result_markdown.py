"""Renders the result artifact: headline, links, trend, gates, rows by stage, likely label errors, seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from seedling.dataset.spreadsheet import original_cell
from seedling.records.gate import Check
from seedling.records.intervals import EstimateRecord
from seedling.records.run_trend import RunPoint, new_test_rows, run_points
from seedling.report.markdown_text import markdown_text
from seedling.versioning.ledger import Outcome
from seedling.workspace import Workspace

MAX_RUNS_IN_TREND = 10
MAX_RUNS_IN_CHART = 30
MAX_LABEL_ERRORS = 10


def result_markdown(workspace: Path, headline: str, links: Mapping[str, str], outcomes: Sequence[Outcome]) -> str:
    """Renders the whole artifact. links: page → http(s) address, empty if no server serves the pages.

    A run without changes has no chart, which would be the same as in the previous run.
    """
    points, has_changes = run_points(workspace), any(outcome.how != "unchanged" for outcome in outcomes)
    parts = [
        f"# {headline}",
        _links(workspace, links),
        *_trend(points, with_chart=has_changes),
        *_rows(outcomes),
        *_label_errors(workspace),
        *_gates(outcomes),
    ]
    return "\n\n".join(parts) + "\n"


def _links(workspace: Path, links: Mapping[str, str]) -> str:
    if links:
        return " · ".join(f"[{title}]({address})" for title, address in links.items())
    command = f"seedling serve-reports --workspace {workspace}"
    return (
        f"The pages are in `{Workspace(workspace).reports}`, and no server serves them. Start one with `{command}`, "
        "and the next run links to them here; or set `reports.base_url` in params.yaml to the address of another "
        "server."
    )


def _trend(points: Sequence[RunPoint], *, with_chart: bool) -> Iterator[str]:
    if not points:
        return
    yield "## Runs"
    if with_chart and len(points) > 1:
        # Imported here because it loads SciPy, which would delay a run without changes.
        from seedling.report.trend_charts import accuracy_image

        if image := accuracy_image(points[-MAX_RUNS_IN_CHART:]):
            yield f"![Accuracy with its interval, per run]({image})"
    newest, other_rows = points[-MAX_RUNS_IN_TREND:][::-1], new_test_rows(points)
    yield _table(
        ["run", "what changed", "accuracy", "log-loss", "rows", "label errors", "seconds"],
        [
            [
                point.day,
                point.what_changed,
                _interval(point.accuracy) + (" (other evaluation rows)" if point.name in other_rows else ""),
                f"{point.log_loss.value:.3f}" if point.log_loss else "",
                "" if point.rows is None else f"{point.rows:,}",
                "" if point.label_issues is None else str(point.label_issues),
                f"{point.total_seconds:.0f}",
            ]
            for point in newest
        ],
        right_from=4,
    )


def _gates(outcomes: Sequence[Outcome]) -> Iterator[str]:
    lines = [
        [
            outcome.stage,
            "yes" if check.passed else f"**NO** ({check.severity})",
            markdown_text(f"{check.expectation}{_column(check)}"),
            markdown_text(check.observed),
        ]
        for outcome in outcomes
        for check in outcome.summary.checks
    ]
    if lines:
        failed = sum(not line[1].startswith("yes") for line in lines)
        yield f"## Gates: {len(lines)} expectations, {failed} failed"
        yield _table(["stage", "passed", "expectation", "observed"], sorted(lines, key=lambda line: line[1] == "yes"))


def _rows(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "## Stages"
    lines = []
    for outcome in outcomes:
        rows = outcome.summary.rows
        counts = ["", "", ""] if rows is None else [f"{count:,}" for count in (rows.rows_in, rows.kept, rows.rejected)]
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in outcome.summary.reasons.items())
        note = "; ".join(part for part in (reasons, outcome.summary.note) if part)
        lines.append([outcome.stage, outcome.how, *counts, f"{outcome.seconds:.1f}", markdown_text(note)])
    yield _table(["stage", "result", "rows in", "kept", "rejected", "seconds", "note"], lines, right_from=2, right_to=6)


def _label_errors(workspace: Path) -> Iterator[str]:
    path = Workspace(workspace).label_issues_file
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False).head(MAX_LABEL_ERRORS)
    except (OSError, ValueError):
        return
    if not frame.empty:
        yield "## Likely label errors"
        columns = ["origin", "original_label", "suggested_label", "p_label_error"]
        lines = [[markdown_text(original_cell(cell)) for cell in line] for line in frame[columns].to_numpy().tolist()]
        yield _table(["row", "label", "suggested label", "probability of an error"], lines)


def _interval(estimate: EstimateRecord | None) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]" if estimate else ""


def _column(check: Check) -> str:
    return f" ({check.column})" if check.column else ""


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], right_from: int = 99, right_to: int = 99) -> str:
    """Renders a Markdown table; columns from right_from up to right_to are aligned to the right."""
    rule = ["--:" if right_from <= column < right_to else "---" for column in range(len(head))]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in [head, rule, *lines])


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")

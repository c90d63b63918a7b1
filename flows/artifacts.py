"""The Prefect artifacts of a run: a table per stage, progress of long stages, the result with its trend, page links.

Each key begins with the workspace's name, so that the versions of a key are the runs of one workspace.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from seedling.config.params import Params
from seedling.config.sources import describe_source
from seedling.flows.result_markdown import result_markdown
from seedling.flows.run_names import artifact_key
from seedling.progress import AnnouncingProgress, Progress, announce
from seedling.records.candidates import CandidatesRecord
from seedling.records.decision import DecisionRecord
from seedling.records.gate import Check
from seedling.records.intervals import EstimateRecord
from seedling.records.notes import decision_note
from seedling.records.run_trend import run_points
from seedling.report.markdown_text import markdown_text
from seedling.versioning.ledger import Outcome
from seedling.workspace import CANDIDATES, DECISION, Workspace

MAX_RUNS_IN_TABLE = 30
MIN_PROGRESS_SECONDS = 2.0  # for shorter stages, a progress bar would only flicker


def publish(workspace: Path, outcome: Outcome) -> None:
    """Publishes a table with the stage's rows, reasons and seconds, and a table with the checks of its gate."""
    key = artifact_key(workspace, outcome.stage)
    rows = [{"what": name, "value": str(value)} for name, value in outcome_items(outcome)]
    create_table_artifact(key=f"{key}-rows", table=rows, description=f"**{outcome.stage}**: {outcome.how}")
    if checks := outcome.summary.checks:
        publish_gate(workspace, outcome.stage, checks)


def publish_gate(workspace: Path, stage: str, checks: Sequence[Check]) -> None:
    """Publishes a table with each check of the stage's gate, also of a failed gate."""
    table = [
        {
            "passed": "yes" if check.passed else "NO",
            "severity": check.severity,
            "expectation": check.expectation,
            "arguments": ", ".join(f"{name}={value}" for name, value in check.arguments.items()),
            "observed": check.observed,
        }
        for check in checks
    ]
    failed = sum(not check.passed for check in checks)
    key = artifact_key(workspace, stage, "gate")
    create_table_artifact(key=key, table=table, description=f"{len(checks)} checks, {failed} failed")


def outcome_items(outcome: Outcome) -> Iterator[tuple[str, Any]]:
    """Yields name and value of each number of a stage: rows, rejections by reason, seconds; and its note."""
    if rows := outcome.summary.rows:
        yield from (("rows in", rows.rows_in), ("rows kept", rows.kept), ("rows rejected", rows.rejected))
    yield from ((f"rejected: {reason}", count) for reason, count in outcome.summary.reasons.items())
    yield "seconds", f"{outcome.seconds:.1f}"
    if outcome.summary.note:
        yield "note", outcome.summary.note


def outcome_line(outcome: Outcome) -> str:
    """The items of a stage in one line, for the run's log."""
    return ", ".join(f"{name} {value}" for name, value in outcome_items(outcome) if name != "seconds")


def publish_description(workspace: Path, params: Params) -> None:
    """Publishes what this run works on: the workspace, its sources, and the effort."""
    sources = ", ".join(describe_source(source) for source in params.scrape.sources)
    description = {
        "workspace": str(workspace),
        "rows come from": f"{sources}{f', as of {params.scrape.as_of}' if params.scrape.as_of else ''}",
        "kind": params.modality,
        "effort": f"{params.effort}, up to {params.rounds} rounds of pseudo-labels, seed {params.seed}",
        "encoder": params.encoder.model if params.encoder else "none",
    }
    table = "\n".join(f"| {name} | {markdown_text(value)} |" for name, value in description.items())
    markdown = f"| this run | |\n|---|---|\n{table}\n"
    create_markdown_artifact(key=artifact_key(workspace, "run"), markdown=markdown, description=workspace.name)


def publish_rounds(workspace: Path, number: int) -> None:
    """Publishes a table of the rounds up to `number`, as a new version of the artifact.

    Its columns: the best candidate by cross-validated log-loss, its accuracy and log-loss, and the round's decision.
    """
    models, rounds = Workspace(workspace).models, []
    for path in [models / str(round_number) / CANDIDATES for round_number in range(number + 1)]:
        if not path.is_file():  # the round was skipped
            continue
        decision = DecisionRecord.read(path.with_name(DECISION))
        best = CandidatesRecord.read(path).best
        accuracy = best.accuracy if best else None
        rounds.append(
            {
                "round": decision.round,
                "best candidate": " + ".join([best.learner, *best.recipe]) if best else "not evaluated",
                "accuracy": _with_interval(accuracy) if accuracy else "",
                "log-loss": f"{best.log_loss:.3f}" if best else "",
                "decision": decision_note(
                    decision.round,
                    decision.decision,
                    decision.reason,
                    decision.accuracy is not None,
                    accuracy.value if accuracy else None,
                ),
            }
        )
    if rounds:
        key = artifact_key(workspace, "rounds")
        create_table_artifact(key=key, table=rounds, description="Cross-validated metrics, one row per round")


def _with_interval(estimate: EstimateRecord) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def publish_metrics(workspace: Path) -> None:
    """Publishes a table of the metrics of each run, the newest first."""
    table = [
        {
            "run": point.day,
            "what changed": point.what_changed,
            "accuracy": _with_interval(point.accuracy) if point.accuracy else "unknown",
            "log-loss": _with_interval(point.log_loss) if point.log_loss else "",
            "evaluated on": f"{point.evaluation_rows} {point.evaluated_on.replace('_', '-')} rows",
            "rows": "" if point.rows is None else f"{point.rows:,}",
            "likely label errors": "" if point.label_issues is None else str(point.label_issues),
            "seconds": f"{point.total_seconds:.0f}",
        }
        for point in reversed(run_points(workspace)[-MAX_RUNS_IN_TABLE:])
    ]
    if table:
        key = artifact_key(workspace, "metrics")
        create_table_artifact(key=key, table=table, description="One row per run, the newest first")


def publish_result(workspace: Path, headline: str, links: Mapping[str, str], outcomes: Sequence[Outcome]) -> None:
    """Publishes the result with its interval, page links, the trend, and the outcome of each stage.

    links: maps pages to addresses.
    """
    markdown = result_markdown(workspace, headline, links, outcomes)
    create_markdown_artifact(key=artifact_key(workspace, "result"), markdown=markdown, description="The accepted model")


def publish_review(workspace: Path, sentence: str, url: str | None, command: str) -> None:
    """Publishes that the run waits for reviewers, with a link to the reviewer. url: None if no server runs."""
    link = f"[Open the reviewer]({url})" if url else f"`{command}` opens the reviewer."
    markdown = f"{markdown_text(sentence)}\n\n{link}\n"
    create_markdown_artifact(
        key=artifact_key(workspace, "review"), markdown=markdown, description="Waits for reviewers"
    )


@contextmanager
def progress_artifact(workspace: Path, stage: str, also: Progress) -> Iterator[Progress]:
    """Yields a progress function that calls `also` and, after MIN_PROGRESS_SECONDS, updates Prefect's UI."""
    began = last_update = time.monotonic()
    artifact: UUID | None = None
    flow_run_context = contextvars.copy_context()  # worker threads, which report progress, do not have it

    def show(what: str, done: int, total: int | None) -> None:
        nonlocal last_update, artifact
        also(what, done, total)
        now = time.monotonic()
        if total and now - began > MIN_PROGRESS_SECONDS and now - last_update > MIN_PROGRESS_SECONDS / 2:
            last_update = now
            artifact = flow_run_context.copy().run(
                _publish_progress, artifact, workspace, stage, what, min(100.0, 100 * done / total)
            )

    yield AnnouncingProgress(show, partial(announce, also))


def _publish_progress(artifact: UUID | None, workspace: Path, stage: str, what: str, percent: float) -> UUID:
    description = f"{stage}: {what}"
    if artifact is None:
        artifact_id: Any = create_progress_artifact(
            progress=percent, key=artifact_key(workspace, stage, "progress"), description=description
        )
        return UUID(str(artifact_id))
    update_progress_artifact(artifact_id=artifact, progress=percent, description=description)
    return artifact

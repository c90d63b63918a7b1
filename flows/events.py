"""The Prefect events of a run, such as seedling.gate.failed, with the workspace as their resource.

Each event can trigger an automation (deploy/automations.yaml); `notify` in params.yaml sends events without one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seedling.config.monitoring_params import EventKind
from seedling.errors import GateFailed
from seedling.flows.failures import sentence_of
from seedling.records.gate import Check
from seedling.records.run_records import LabelIssuesRecord
from seedling.serving.report_links import slug
from seedling.versioning.ledger import Outcome

EVENT_NAMES: dict[EventKind, str] = {
    "gate_failed": "seedling.gate.failed",
    "round_rejected": "seedling.round.rejected",
    "drift": "seedling.drift",
    "needs_review": "seedling.needs-review",
    "nothing_new": "seedling.nothing-new",
    "run_failed": "seedling.run.failed",
}
TITLES: dict[EventKind, str] = {
    "gate_failed": "A gate failed",
    "round_rejected": "A round was rejected",
    "drift": "The data drifts",
    "needs_review": "Labels need a review",
    "nothing_new": "Nothing has changed",
    "run_failed": "The run failed",
}


@dataclass(frozen=True)
class RunEvent:
    """An event of a run: its kind, one sentence, and details by name."""

    kind: EventKind
    sentence: str
    details: dict[str, Any] = field(default_factory=dict)


def events_of_error(error: BaseException) -> list[RunEvent]:
    """Returns the events of a run that ended with an error."""
    if isinstance(error, GateFailed):
        failed = [check for check in error.checks if not check.passed]
        drifting = [check for check in failed if check.is_relative]
        events = [RunEvent("gate_failed", sentence_of(error), {"failed": [_brief(check) for check in failed]})]
        return events + ([_drift("the failed gate", drifting)] if drifting else [])
    return [RunEvent("run_failed", sentence_of(error))]


def events_of_outcomes(
    outcomes: Sequence[Outcome], issues: LabelIssuesRecord | None, issues_before: int
) -> list[RunEvent]:
    """Returns the events of a run that completed.

    issues: the label issues according to validate; issues_before: the number of labels that the
    previous run flagged.
    """
    changed = [outcome for outcome in outcomes if outcome.how != "unchanged"]
    if not changed:
        return [RunEvent("nothing_new", "No stage ran: data, params and gates are the same as in the last run.")]
    return [*_rejected(changed), *_drifts(changed), *_reviews(changed, issues, issues_before)]


def _rejected(changed: Sequence[Outcome]) -> Iterator[RunEvent]:
    for outcome in changed:
        note = outcome.summary.note
        if outcome.stage.startswith("train@") and note.startswith("rejected"):
            number = outcome.stage.partition("@")[2]
            yield RunEvent("round_rejected", f"Round {number} was {note}.", {"round": int(number)})


def _drifts(changed: Sequence[Outcome]) -> Iterator[RunEvent]:
    for outcome in changed:
        drifting = [check for check in outcome.summary.checks if not check.passed and check.is_relative]
        if drifting:
            yield _drift(f"stage {outcome.stage}", drifting)


def _drift(producer: str, checks: Sequence[Check]) -> RunEvent:
    drifted_columns = "; ".join(f"{check.expectation} ({check.column}): {check.observed}" for check in checks)
    return RunEvent(
        "drift",
        f"The rows of {producer} differ from the previous ones: {drifted_columns}.",
        {"failed": [_brief(check) for check in checks]},
    )


def _reviews(changed: Sequence[Outcome], issues: LabelIssuesRecord | None, issues_before: int) -> Iterator[RunEvent]:
    is_validated = any(outcome.stage == "validate" for outcome in changed)
    if is_validated and issues and issues.flagged > issues_before:
        yield RunEvent(
            "needs_review",
            f"{issues.flagged} of {issues.labels} labels are likely wrong ({issues_before} in the previous run): "
            "reports/label_issues.csv lists them.",
            issues.model_dump(),
        )


def _brief(check: Check) -> dict[str, Any]:
    """The parts of a check that an event's payload has."""
    return check.model_dump(mode="json", include={"expectation", "arguments", "severity", "observed"})


def emit(workspace: Path, event: RunEvent, context: Mapping[str, Any]) -> None:
    """Emits the event to Prefect, with the workspace as its resource. context: added to every event of the run."""
    from prefect.events import emit_event

    name = workspace.resolve().name
    related = []
    if flow_run_id := context.get("flow_run_id"):
        related = [{"prefect.resource.id": f"prefect.flow-run.{flow_run_id}", "prefect.resource.role": "flow-run"}]
    emit_event(
        event=EVENT_NAMES[event.kind],
        resource={"prefect.resource.id": f"seedling.workspace.{slug(name)}", "prefect.resource.name": name},
        related=related,
        payload={"sentence": event.sentence, **context, **event.details},
    )

"""The name of a run in Prefect, such as `flowers 2026-11-28 18:03 data +12`, its tags, and its artifact keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from seedling.records.run_records import RunInputs, RunRecord
from seedling.serving.report_links import slug
from seedling.versioning.ledger import Outcome

RunOutcome = Literal["accepted", "rejected", "gate failed", "nothing new", "failed"]
OUTCOMES: tuple[RunOutcome, ...] = ("accepted", "rejected", "gate failed", "nothing new", "failed")
MAX_PARAMS_IN_NAME = 2
SECTIONS_OF_NO_STAGE = frozenset({"notify", "reports", "review"})  # of params.yaml; they change no rows


def artifact_key(workspace: Path, *parts: str) -> str:
    """The key of an artifact of this workspace, such as `flowers-scrape-gate`."""
    return "-".join(slug(part) for part in (workspace.resolve().name, *parts))


def flow_run_name(workspace: Path, started: datetime, what_changed: str = "") -> str:
    """Returns `<workspace> <date time> <what changed>`; the last part may be unknown."""
    return f"{workspace.resolve().name} {started:%Y-%m-%d %H:%M} {what_changed}".rstrip()


def experiment_name(started: datetime) -> str:
    """Returns the name of the run's record and DVC experiment, a valid branch name: 20261128-180342-grow."""
    return f"{started:%Y%m%d-%H%M%S}-grow"


def what_changed(inputs: RunInputs, last_record: RunRecord | None, outcomes: Sequence[Outcome] | None = None) -> str:
    """Returns what differs from the previous run, in a few words; may be empty before the stages have run.

    outcomes: those of the stages, after they have run; if the inputs are equal, the first stage that ran is named.
    """
    if last_record is None:
        return "first run"
    parts = list(_changed_inputs(inputs, last_record.inputs))
    if outcomes is not None and not parts:
        changed = [outcome for outcome in outcomes if outcome.how != "unchanged"]
        if not changed:
            return "nothing new"
        rows = _new_rows(changed, last_record)
        parts.append(f"rows {rows:+d}" if rows else f"{changed[0].stage} redone")
    return ", ".join(parts)


def _changed_inputs(now: RunInputs, before: RunInputs | None) -> Iterator[str]:
    if not before:
        return
    if now.data_digest != before.data_digest:
        files = (now.data_files or 0) - (before.data_files or 0)
        yield f"data {files:+d}" if files else "data changed"
    params = [name for name in _changed_keys(before.params, now.params) if name not in SECTIONS_OF_NO_STAGE]
    if params:
        yield f"params {', '.join(params)}" if len(params) <= MAX_PARAMS_IN_NAME else f"{len(params)} params"
    if now.gates != before.gates:
        yield "gates"


def _changed_keys(before: Mapping[str, Any], after: Mapping[str, Any], above: str = "") -> list[str]:
    """Dotted keys of the values that differ; sections that belong to no stage only as a whole."""
    names: list[str] = []
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict) and f"{above}{key}" not in SECTIONS_OF_NO_STAGE:
            names += _changed_keys(old, new, f"{above}{key}.")
        else:
            names.append(f"{above}{key}")
    return names


def _new_rows(changed: Sequence[Outcome], last_record: RunRecord) -> int:
    """The increase of the rows that scrape kept since the previous run; 0 if it did not run."""
    before = last_record.metrics.kept("scrape") if last_record.metrics else None
    kept = [outcome.summary.rows.kept for outcome in changed if outcome.stage == "scrape" and outcome.summary.rows]
    return kept[0] - before if kept and before is not None else 0


def outcome_of(outcomes: Sequence[Outcome]) -> RunOutcome:
    """Returns `rejected` if the last compared round was rejected, `nothing new` if no stage ran, else `accepted`."""
    if all(outcome.how == "unchanged" for outcome in outcomes):
        return "nothing new"
    notes = [outcome.summary.note for outcome in outcomes if outcome.stage.startswith("train@")]
    compared = [note for note in notes if note and not note.startswith("skipped")]
    return "rejected" if compared and compared[-1].startswith("rejected") else "accepted"


def tags(workspace: Path, effort: str, outcome: RunOutcome | None = None) -> list[str]:
    """The run's tags: workspace, effort, and, if known, the outcome."""
    return [workspace.resolve().name, effort, *([outcome] if outcome else [])]


def rename_run(name: str, run_tags: Sequence[str]) -> None:
    """Sets the name of the current flow run and its parent run, and adds the tags to those of the user."""
    from prefect import runtime
    from prefect.client.orchestration import get_client

    ids = [UUID(str(run_id)) for run_id in (runtime.flow_run.id, runtime.flow_run.parent_flow_run_id) if run_id]
    with get_client(sync_client=True) as client:
        for flow_run_id in ids:
            present = client.read_flow_run(flow_run_id).tags
            kept = [tag for tag in present if tag not in {*OUTCOMES, *run_tags}]
            client.update_flow_run(flow_run_id, name=name, tags=[*kept, *run_tags])

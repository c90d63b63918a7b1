"""What a run was: its name, what had changed since the previous run, and its outcome, in a few words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from seedling.records.run_records import RunInputs, RunRecord
from seedling.versioning.ledger import Outcome

RunOutcome = Literal["accepted", "rejected", "gate failed", "nothing new", "failed"]
OUTCOMES: tuple[RunOutcome, ...] = ("accepted", "rejected", "gate failed", "nothing new", "failed")
MAX_PARAMS_IN_NAME = 2
SECTIONS_OF_NO_STAGE = frozenset({"notify", "reports", "review"})  # of params.yaml; they change no rows


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

"""The task `train`: trains the candidate models of one round, and decides whether the round is accepted."""

from __future__ import annotations

from pathlib import Path

from seedling.flows.artifacts import publish_rounds
from seedling.tasks.stage_task import bring_up_to_date, stage_task
from seedling.versioning.ledger import Outcome


@stage_task("train@{round_number}")
def train(workspace: str, round_number: int) -> Outcome:
    """Trains the candidate models of one round, and decides whether the round is accepted."""
    outcome = bring_up_to_date(workspace, f"train@{round_number}")
    if outcome.how != "unchanged":
        publish_rounds(Path(workspace), round_number)
    return outcome

"""The task `evaluate`: scores the accepted model on the test rows."""

from __future__ import annotations

from seedling.tasks.stage_task import bring_up_to_date, stage_task
from seedling.versioning.ledger import Outcome


@stage_task("evaluate")
def evaluate(workspace: str) -> Outcome:
    """Scores the accepted model on the test rows."""
    return bring_up_to_date(workspace, "evaluate")

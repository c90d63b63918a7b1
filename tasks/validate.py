"""The task `validate`: checks every row, splits the rows into folds, and finds likely label errors."""

from __future__ import annotations

from seedling.tasks.stage_task import bring_up_to_date, stage_task
from seedling.versioning.ledger import Outcome


@stage_task("validate")
def validate(workspace: str) -> Outcome:
    """Checks every row, splits the rows into folds, and finds likely label errors."""
    return bring_up_to_date(workspace, "validate")

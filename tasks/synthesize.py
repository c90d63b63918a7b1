"""The task `synthesize`: creates new rows from templates and by mixing pairs of rows."""

from __future__ import annotations

from seedling.tasks.stage_task import bring_up_to_date, stage_task
from seedling.versioning.ledger import Outcome


@stage_task("synthesize")
def synthesize(workspace: str) -> Outcome:
    """Creates new rows from templates and by mixing pairs of rows."""
    return bring_up_to_date(workspace, "synthesize")

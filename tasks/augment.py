"""The task `augment`: creates augmented copies of the labeled rows."""

from __future__ import annotations

from seedling.tasks.stage_task import bring_up_to_date, stage_task
from seedling.versioning.ledger import Outcome


@stage_task("augment")
def augment(workspace: str) -> Outcome:
    """Creates augmented copies of the labeled rows."""
    return bring_up_to_date(workspace, "augment")

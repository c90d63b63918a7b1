"""The task `pseudo_label`: labels the unlabeled rows with the model of the previous round."""

from __future__ import annotations

from seedling.tasks.stage_task import bring_up_to_date, stage_task
from seedling.versioning.ledger import Outcome


@stage_task("pseudo_label@{round_number}")
def pseudo_label(workspace: str, round_number: int) -> Outcome:
    """Labels the unlabeled rows with the model of the previous round."""
    return bring_up_to_date(workspace, f"pseudo_label@{round_number}")

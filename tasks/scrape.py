"""The task `scrape`: collects the rows of all sources."""

from __future__ import annotations

from typing import Any

from seedling.errors import SeedlingError, SourceUnreachable
from seedling.tasks.stage_task import bring_up_to_date, stage_task
from seedling.versioning.ledger import Outcome
from seedling.web_visits import visit_sources


def is_worth_retrying(task: Any, run: Any, state: Any) -> bool:
    """Whether a retry may succeed: not after bad input or a failed gate, which the user must fix."""
    try:
        state.result()
    except SourceUnreachable:
        return True
    except SeedlingError:
        return False
    except Exception:  # noqa: BLE001  (any other error of a site, a network or a disk)
        return True
    return False


@stage_task("scrape", retries=2, retry_delay_seconds=10, retry_condition_fn=is_worth_retrying)
def scrape(workspace: str, visit: bool = False) -> Outcome:
    """Collects the rows of all sources. visit: whether to visit the web sources for new rows."""
    return bring_up_to_date(workspace, "scrape", before_stage=visit_sources if visit else None)

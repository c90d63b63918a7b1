"""The name of a run in Prefect, such as `flowers 2026-11-28 18:03 data +12`, its tags, and its artifact keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from uuid import UUID

from seedling.records.run_description import OUTCOMES, RunOutcome
from seedling.serving.report_links import slug


def artifact_key(workspace: Path, *parts: str) -> str:
    """The key of an artifact of this workspace, such as `flowers-scrape-gate`."""
    return "-".join(slug(part) for part in (workspace.resolve().name, *parts))


def flow_run_name(workspace: Path, started: datetime, what_changed: str = "") -> str:
    """Returns `<workspace> <date time> <what changed>`; the last part may be unknown."""
    return f"{workspace.resolve().name} {started:%Y-%m-%d %H:%M} {what_changed}".rstrip()


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

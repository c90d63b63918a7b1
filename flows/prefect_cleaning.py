"""Finds and removes old flow runs of a workspace on a permanent Prefect server, for `seedling clean`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
)
from prefect.client.schemas.objects import FlowRun

from seedling.flows.temporary_server import configured_api_url

FLOWS = ["grow", "grow on schedule"]
MAX_RUNS_PER_REQUEST = 200  # the server's limit


class PrefectFlowRuns:
    """The flow runs on the Prefect server of the environment or the profile."""

    def older_than(self, workspace: Path, days: float) -> list[FlowRun]:
        """Returns the workspace's flow runs that ended more than `days` ago.

        Empty if no permanent server is set, or if it does not answer.
        """
        if configured_api_url() is None:
            return []
        with get_client(sync_client=True) as client:
            if client.api_healthcheck() is not None:
                return []
            before = datetime.now(UTC) - timedelta(days=days)
            return [run for run in _ended(client, before) if _workspace_of(run) == workspace]

    def remove(self, flow_runs: list[FlowRun]) -> None:
        """Removes the flow runs with their artifacts."""
        with get_client(sync_client=True) as client:
            for run in flow_runs:
                artifacts_of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
                for artifact in client.read_artifacts(artifact_filter=artifacts_of_run):
                    client.delete_artifact(artifact.id)
                client.delete_flow_run(run.id)


def _ended(client: SyncPrefectClient, before: Any) -> Iterator[FlowRun]:
    offset = 0
    while page := client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=FLOWS)),
        flow_run_filter=FlowRunFilter(end_time=FlowRunFilterEndTime(before_=before)),
        limit=MAX_RUNS_PER_REQUEST,
        offset=offset,
    ):
        yield from page
        offset += len(page)


def _workspace_of(run: FlowRun) -> Path | None:
    workspace = run.parameters.get("workspace")
    return Path(str(workspace)).resolve() if workspace is not None else None

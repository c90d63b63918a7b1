"""`seedling schedule`: runs the workspace as a Prefect deployment by a cron schedule, and starts a server if necessary.

Runs do not overlap: a run that is due during another one is canceled. After downtime, one run replaces all missed runs.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID
from zoneinfo import available_timezones

from seedling.config.params import load
from seedling.errors import InputError
from seedling.flows.temporary_server import (
    PrefectServer,
    answers,
    bypass_proxies_for_loopback,
    check_api,
    check_prefect_home,
    configured_api_url,
    use_api,
)
from seedling.serving.report_server import DEFAULT_PORT, serve_reports_beside
from seedling.terminal.console import PrintableConsole
from seedling.workspace import Workspace

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.deployments.runner import RunnerDeployment
    from prefect.schedules import Schedule

SKIPPED = "Skipped"  # the name of the final state of a run that does nothing
MAX_RUNS_PER_REQUEST = 200  # the server's limit
START_GRACE_SECONDS = 120  # an accepted run that does not start holds the slot for this time
# Files keep the lease of the deployment's only slot when the server ends. With Prefect's default, leases in memory, a
# server that is killed during a run leaves the slot taken forever.
LEASES = {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}


def schedule_workspace(
    workspace: Path,
    cron: str,
    timezone: str,
    name: str | None,
    *,
    reports_host: str = "127.0.0.1",
    reports_port: int = DEFAULT_PORT,
) -> None:
    """Runs the workspace by the schedule until stopped, and serves its pages on reports_host and reports_port.

    Raises InputError if the cron expression or the time zone is not valid.
    """
    params = load(workspace)
    check_prefect_home()
    schedule = _schedule(cron, timezone)
    console = PrintableConsole()
    with _api(workspace, console) as (api, started_here):
        from prefect.runner import Runner

        from seedling.flows.reviewing import resume_regularly
        from seedling.flows.stopping import Stopped

        title = name or workspace.name
        runner = Runner(name=title, pause_on_shutdown=False)
        deployment_id = cast("UUID", runner.add_deployment(_deployment(workspace, title, schedule)))
        free_slot(deployment_id, nothing_runs=started_here)
        skip_missed_runs(deployment_id, keep_latest=True)
        console.print(
            f"Scheduled '{title}' at '{cron}' ({timezone}). A run that would overlap with another is skipped. "
            f"UI: {api.removesuffix('/api')}. Press Ctrl-C to stop.",
            highlight=False,
            soft_wrap=True,
        )
        if pages := serve_reports_beside(workspace, params.reports, reports_host, reports_port):
            console.print(f"Pages: {pages}/", highlight=False, soft_wrap=True)
        resume_regularly(workspace)
        asyncio.run(runner.start())
        if runner.stopping:  # Prefect's runner handles SIGTERM itself: it ends its runs and returns
            raise Stopped(signal.SIGTERM)


def skip_missed_runs(deployment_id: UUID, *, keep_latest: bool) -> int:
    """Cancels, as "Skipped", the deployment's scheduled runs whose time has passed, and returns how many.

    keep_latest: whether to keep the latest of them, which then runs instead of all.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import StateType

    skipped = 0
    with get_client(sync_client=True) as client:
        while True:
            due = [run for run in _runs(client, deployment_id, [StateType.SCHEDULED], due=True) if run.auto_scheduled]
            missed = due[1:] if keep_latest else due
            for run in missed:
                client.set_flow_run_state(
                    run.id, skipped_state("Skipped: its time has passed, and a later run replaces it."), force=True
                )
            skipped += len(missed)
            if len(due) < MAX_RUNS_PER_REQUEST:
                return skipped


def skipped_state(message: str) -> State[Any]:
    """The final state of a run that does nothing: Cancelled, named "Skipped"."""
    from prefect.states import Cancelled

    return Cancelled(name=SKIPPED, message=message)


def free_slot(deployment_id: UUID, *, nothing_runs: bool) -> None:
    """Frees the deployment's only slot if a killed run or server has left it taken.

    nothing_runs: whether it is known that no run of the deployment is alive; runs recorded as running are then marked
    as crashed.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    with get_client(sync_client=True) as client:
        active = _runs(client, deployment_id, [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
        if nothing_runs:
            for run in active:
                message = "The process of the run ended without setting its state."
                client.set_flow_run_state(run.id, Crashed(message=message), force=True)
        elif active:
            return
        client.update_global_concurrency_limit(
            f"deployment:{deployment_id}", GlobalConcurrencyLimitUpdate(active_slots=0)
        )


def _runs(
    client: SyncPrefectClient, deployment_id: UUID, state_types: list[Any], *, due: bool = False
) -> list[FlowRun]:
    """Returns the deployment's runs in these states, the latest first. due: only those whose time has passed."""
    from prefect.client.schemas import filters
    from prefect.client.schemas.sorting import FlowRunSort

    passed = filters.FlowRunFilterExpectedStartTime.model_validate({"before_": datetime.now(UTC)})
    return client.read_flow_runs(
        flow_run_filter=filters.FlowRunFilter(
            deployment_id=filters.FlowRunFilterDeploymentId(any_=[deployment_id]),
            state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=state_types)),
            expected_start_time=passed if due else None,
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=MAX_RUNS_PER_REQUEST,
    )


def _deployment(workspace: Path, title: str, schedule: Schedule) -> RunnerDeployment:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.types.entrypoint import EntrypointType

    from seedling.flows.grow import scheduled

    deployment = scheduled.to_deployment(
        name=title,
        schedule=schedule,
        paused=False,  # also if an earlier schedule of this name was paused in the UI
        parameters={"workspace": str(workspace)},
        concurrency_limit=ConcurrencyLimitConfig(
            limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW, grace_period_seconds=START_GRACE_SECONDS
        ),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return cast("RunnerDeployment", deployment)


def _schedule(cron: str, timezone: str) -> Schedule:
    from prefect.schedules import Cron

    if timezone not in available_timezones():
        raise InputError(f"Unknown time zone '{timezone}': use an IANA name such as 'Europe/Paris'.")
    try:
        return Cron(cron, timezone=timezone)
    except ValueError as error:
        raise InputError(
            f"'{cron}' is not a cron expression: write five fields as in crontab, for example \"0 6 * * *\" for every "
            "day at six."
        ) from error


@contextmanager
def _api(workspace: Path, console: PrintableConsole) -> Iterator[tuple[str, bool]]:
    """Connects to the API of PREFECT_API_URL, else to the server on this machine, which is started if necessary.

    Yields the API's address, and whether the server was started.
    """
    from prefect.settings import get_current_settings

    bypass_proxies_for_loopback()
    api_url = configured_api_url()
    if api_url is not None:
        check_api(api_url)
        yield api_url, False
        return
    port = get_current_settings().server.api.port
    local = f"http://127.0.0.1:{port}/api"
    if answers(local):
        use_api(local)
        yield local, False
        return
    server = PrefectServer(
        Workspace(workspace).schedule_server_log,
        lambda sentence: console.print(sentence, style="yellow", markup=False, highlight=False, soft_wrap=True),
        port=port,
        environment=LEASES,
    )
    with console.status("Starting Prefect's server …"):
        server.start()
    use_api(server.api_url)
    try:
        yield server.api_url, True
    finally:
        server.stop()

"""`seedling schedule`: the workspace as a Prefect deployment that runs by a cron schedule, with a server where none is reachable.

Runs never overlap: one that is due while another is at work is cancelled. After downtime, one run catches up for all that
were missed.
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
    given_api_url,
    use_api,
)
from seedling.serving.report_server import DEFAULT_PORT, serve_reports_beside
from seedling.terminal.console import PrintableConsole

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.deployments.runner import RunnerDeployment
    from prefect.schedules import Schedule

LOG_FILE = Path(".seedling") / "logs" / "prefect-schedule-server.log"
MAX_RUNS_PER_REQUEST = 200  # the server's limit
START_GRACE_SECONDS = 120  # for which a run that was accepted and does not start holds the slot
# Kept in files, the record of who holds the deployment's only slot outlives the server; in memory, as is Prefect's default,
# a server that is killed during a run would leave the slot taken for good.
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
    """Runs the workspace by the schedule until stopped, and serves its pages at reports_host and reports_port.

    Raises InputError for a cron expression or time zone that is not valid.
    """
    params = load(workspace)
    check_prefect_home()
    schedule = _schedule(cron, timezone)
    console = PrintableConsole()
    with _api(workspace, console) as (api, started_here):
        from prefect.runner import Runner

        from seedling.flows.stopping import Stopped

        title = name or workspace.name
        runner = Runner(name=title, pause_on_shutdown=False)
        deployment_id = cast("UUID", runner.add_deployment(_deployment(workspace, title, schedule)))
        free_slot(deployment_id, nothing_runs=started_here)
        skip_missed_runs(deployment_id, keep_latest=True)
        console.print(
            f"Scheduled '{title}' at '{cron}' ({timezone}). A run that would overlap with another is skipped. "
            f"UI: {api.removesuffix('/api')}. Ctrl-C stops.",
            highlight=False,
            soft_wrap=True,
        )
        if pages := serve_reports_beside(workspace, params.reports, reports_host, reports_port):
            console.print(f"Pages: {pages}/", highlight=False, soft_wrap=True)
        asyncio.run(runner.start())
        if runner.stopping:  # Prefect's runner takes SIGTERM itself, ends its runs and returns
            raise Stopped(signal.SIGTERM)


def skip_missed_runs(deployment_id: UUID, *, keep_latest: bool) -> int:
    """Cancels, as "Skipped", the deployment's scheduled runs whose time has passed, and returns how many.

    keep_latest: All but the latest of them, which then runs for all.
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
                    run.id, skipped_state("Skipped: its time passed, and one later run catches up."), force=True
                )
            skipped += len(missed)
            if len(due) < MAX_RUNS_PER_REQUEST:
                return skipped


def skipped_state(message: str) -> State[Any]:
    """The final state of a run that does nothing: Cancelled, named "Skipped"."""
    from prefect.states import Cancelled

    return Cancelled(name="Skipped", message=message)


def free_slot(deployment_id: UUID, *, nothing_runs: bool) -> None:
    """Frees the deployment's only slot where a run that was killed, or a server that was, left it taken.

    nothing_runs: It is known that no run of the deployment is alive; those that are recorded as running have crashed.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    with get_client(sync_client=True) as client:
        active = _runs(client, deployment_id, [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
        if nothing_runs:
            for run in active:
                message = "The process that ran it ended without telling Prefect."
                client.set_flow_run_state(run.id, Crashed(message=message), force=True)
        elif active:
            return
        client.update_global_concurrency_limit(
            f"deployment:{deployment_id}", GlobalConcurrencyLimitUpdate(active_slots=0)
        )


def _runs(
    client: SyncPrefectClient, deployment_id: UUID, state_types: list[Any], *, due: bool = False
) -> list[FlowRun]:
    """The deployment's runs in these states, the latest first; with `due`, those whose time has passed."""
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
        paused=False,  # also where an earlier schedule of this name was paused in the UI
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
            f"'{cron}' is not a cron expression: write five fields as in crontab, such as \"0 6 * * *\" for every day at six."
        ) from error


@contextmanager
def _api(workspace: Path, console: PrintableConsole) -> Iterator[tuple[str, bool]]:
    """The API that PREFECT_API_URL names, or of a server on this machine, started here where it is not running.

    Yields its address, and whether the server was started here.
    """
    from prefect.settings import get_current_settings

    bypass_proxies_for_loopback()
    api_url = given_api_url()
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
        workspace / LOG_FILE,
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

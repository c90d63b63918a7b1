"""Lets a run wait for reviewers after validate or pseudo_label (`review.wait_after` in params.yaml; by default, never).

The wait is Prefect's own, with typed input (`ReviewDone`), so that a person can end it in Prefect's UI. It also ends
when the quota of answers is met, and at the time-out, after which the run goes on without.

- A run of a deployment is suspended: its process ends. It is resumed by `resume_if_met`, which the review server calls
  after answers and `seedling schedule` calls regularly. A further run of the deployment, scheduled for the time-out, or
  the next run by the clock, takes its place if nobody has resumed it.
- Any other run, such as `seedling run` in a terminal, pauses in place, since its process holds the Prefect server.

After the wait, the run starts again from its first stage, on a new snapshot of its inputs, which has the answers. What
has not changed is not executed again.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard
from uuid import UUID

from prefect import get_run_logger, runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from prefect.states import Cancelled, Scheduled

from seedling.config.params import load
from seedling.config.review_params import ReviewParams, WaitAfter
from seedling.errors import DamagedFile
from seedling.flows.artifacts import progress_artifact, publish_review
from seedling.flows.events import RunEvent
from seedling.flows.monitoring import MonitoredRun, never_failing, send_events
from seedling.flows.scheduling import SKIPPED, skipped_state
from seedling.lock import running_process
from seedling.progress import silent
from seedling.records.record import Record
from seedling.records.run_history import last_record
from seedling.review.address import running_reviewer_url
from seedling.review.quota import BEGINNING, AnswerCount, Quota, quota_of, read_stop_rule
from seedling.terminal.notices import state_once
from seedling.workspace import Workspace

NEVER = datetime.max.replace(tzinfo=UTC)
POLL_SECONDS = 2.0
CANCELLATION_POLL_SECONDS = 10.0
SCHEDULE_POLL_SECONDS = 20.0
TIME_OUT_RUN_DELAY = timedelta(seconds=30)  # `seedling schedule` resumes the suspended run before
PAUSE_RESERVE_SECONDS = 86_400  # Prefect would fail the run at its own time-out
MAX_LINE_BYTES = 4096
SUSPENSION_KEY = "seedling-review"
TIME_OUT_TAG = "review-time-out"


class ReviewDone(RunInput):
    """The input with which a run goes on. continue_run: whether it goes on, or ends here; note: shown in its log."""

    continue_run: bool = True
    note: str = ""


class SuspendedRun(Record):
    """A suspended run that waits for reviewers. Times are ISO 8601; time_out_run_id: the run that takes its place."""

    flow_run_id: str
    api_url: str
    since: str
    deadline: str
    time_out_run_id: str | None = None


@cache
def answer_count(folder: Path, since: datetime) -> AnswerCount:
    """The counter of new answers, one per process, so that a review server reads each answer once."""
    return AnswerCount(folder, since)


@dataclass
class ReviewWait:
    """A wait for reviewers. since: from when on answers are new; deadline: when the run goes on without them."""

    workspace: Path
    params: ReviewParams
    since: datetime
    deadline: datetime

    def __post_init__(self) -> None:
        self._count = answer_count(Workspace(self.workspace).reviews, self.since)

    def begun(self) -> ReviewWait:
        """The wait that begins now; its deadline is not later than that of the wait that it continues."""
        latest = datetime.now(UTC) + timedelta(minutes=self.params.timeout_minutes)
        return replace(self, deadline=min(latest, self.deadline))

    def quota(self) -> Quota:
        """The present state of the quota."""
        stop_rule = read_stop_rule(self.workspace) if self.params.until_enough else None
        return quota_of(self.params, self._count(), stop_rule, self.since)

    def reason_to_continue(self) -> str | None:
        """Why the run goes on; None if it waits."""
        quota = self.quota()
        if quota.is_met:
            return f"The quota is met: {quota}."
        return f"The time is over: {quota}." if datetime.now(UTC) >= self.deadline else None

    @property
    def end(self) -> str:
        """When the run goes on by itself."""
        quota = "when the panel says enough" if self.params.until_enough else f"at {self.params.answers:,} answers"
        return f"{quota}, or without them at {self.deadline.astimezone():%Y-%m-%d %H:%M}"


def planned_wait(workspace: Path, params: ReviewParams, deadline: datetime | None) -> ReviewWait:
    """The wait that this run makes if its quota is not met. deadline: of the wait that it continues."""
    return ReviewWait(workspace, params, _last_start(workspace), deadline or NEVER)


def waits_after(wait: ReviewWait | None, stage: WaitAfter) -> TypeGuard[ReviewWait]:
    """Whether the run waits now. wait: None if it has waited already."""
    return wait is not None and wait.params.wait_after == stage and wait.reason_to_continue() is None


def _last_start(workspace: Path) -> datetime:
    record = last_record(workspace)
    return BEGINNING if record is None else datetime.fromisoformat(record.started or record.ended)


def review_command(workspace: Path) -> str:
    """The command that starts the reviewer."""
    return f"seedling review -w {shlex.quote(str(workspace))}"


def wait_for_reviewers(run: MonitoredRun, wait: ReviewWait) -> ReviewDone:
    """Waits, and returns the input that ended the wait.

    A run of a deployment is suspended instead: Prefect's signal ends this process, and the resumed run gets its input
    from `input_if_resumed`.
    """
    wait = wait.begun()
    url, command = running_reviewer_url(wait.workspace), review_command(wait.workspace)
    sentence = f"The run waits for reviewers: {wait.quota()}. Review with `{command}`. It goes on {wait.end}."
    get_run_logger().info(sentence)
    with never_failing("publish the link to the reviewer"):
        publish_review(wait.workspace, sentence, url, command)
    # Messages leave this machine, so they do not have the reviewer's token.
    send_events(run, [RunEvent("needs_review", sentence)], {"Review": url.partition("?")[0]} if url else {})
    is_deployed = runtime.deployment.id is not None and runtime.flow_run.parent_flow_run_id is None
    done = _suspend(wait, sentence) if is_deployed else _pause(wait, sentence, url)
    get_run_logger().info("The run goes on. %s", done.note)
    return done


def ended_state(done: ReviewDone) -> State[Any]:
    """The final state of a run that a person ended instead of continuing it."""
    note = f" {done.note}" if done.note else ""
    return Cancelled(message=f"Ended by a person during the review.{note} Finished stages are kept.")


# In place


def _pause(wait: ReviewWait, sentence: str, url: str | None) -> ReviewDone:
    """Pauses this run in its process."""
    address = f" The reviewer is open at {url}." if url else ""
    key = " Press Enter to go on now." if _terminal_input() is not None else ""
    state_once(f"{sentence}{address}{key}")
    flow_run_id, is_over = UUID(str(runtime.flow_run.id)), threading.Event()
    seconds = (wait.deadline - datetime.now(UTC)).total_seconds()
    with progress_artifact(wait.workspace, "review", silent) as progress:

        def watch() -> None:
            for quota in _watched(wait, flow_run_id, is_over):
                progress("answers", min(quota.answers, quota.needed or 0), quota.needed)

        watcher = threading.Thread(target=watch, name="review-watch", daemon=True)
        watcher.start()
        try:
            return pause_flow_run(
                wait_for_input=ReviewDone.with_initial_data(description=sentence),
                timeout=int(seconds) + PAUSE_RESERVE_SECONDS,
                poll_interval=int(POLL_SECONDS),
            )
        finally:
            is_over.set()
            watcher.join(POLL_SECONDS)


def _watched(wait: ReviewWait, flow_run_id: UUID, is_over: threading.Event) -> Iterator[Quota]:
    """Resumes the paused run when it is due or Enter is pressed; yields the quota each time it looks.

    A run that was canceled in Prefect's UI is stopped as by Ctrl-C, since no worker does that for it.
    """
    wants_to_continue, checked = False, datetime.now(UTC)
    while not is_over.is_set():
        wants_to_continue = _pressed_enter(POLL_SECONDS, is_over) or wants_to_continue
        reason = "Continued in the terminal." if wants_to_continue else wait.reason_to_continue()
        is_free = running_process(wait.workspace) is None  # a refresh of the reviewer's rows is not disturbed
        with suppress(Exception), get_client(sync_client=True) as client:  # the server may be restarting
            if reason is not None and is_free:
                _resume(client, flow_run_id, reason)
            elif datetime.now(UTC) - checked > timedelta(seconds=CANCELLATION_POLL_SECONDS):
                checked = datetime.now(UTC)
                state = client.read_flow_run(flow_run_id).state
                if state is not None and (state.is_cancelling() or state.is_final()):
                    os.kill(os.getpid(), signal.SIGINT)
                    return
        yield wait.quota()


def _terminal_input() -> int | None:
    """The file descriptor of standard input, if this process may read keys from it."""
    try:
        descriptor = sys.stdin.fileno()
        is_ours = os.isatty(descriptor) and os.tcgetpgrp(descriptor) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return None
    return descriptor if is_ours else None


def _pressed_enter(seconds: float, is_over: threading.Event) -> bool:
    """Waits, and returns whether a line was entered meanwhile."""
    descriptor = _terminal_input()
    if descriptor is None:
        is_over.wait(seconds)
        return False
    if not select.select([descriptor], [], [], seconds)[0]:
        return False
    entered = os.read(descriptor, MAX_LINE_BYTES)
    if not entered:  # the terminal has been closed
        is_over.wait(seconds)
    return b"\n" in entered


# Suspended


def _suspend(wait: ReviewWait, sentence: str) -> ReviewDone:
    """Suspends this run of a deployment: raises Prefect's signal, which ends the process."""
    flow_run_id = str(runtime.flow_run.id)
    record = SuspendedRun(
        flow_run_id=flow_run_id,
        api_url=str(get_current_settings().api.url or ""),
        since=wait.since.isoformat(),
        deadline=wait.deadline.isoformat(),
        time_out_run_id=str(_schedule_time_out_run(wait, flow_run_id)),
    )
    record.write(Workspace(wait.workspace).review_wait)
    return suspend_flow_run(
        wait_for_input=ReviewDone.with_initial_data(description=sentence), key=SUSPENSION_KEY, timeout=None
    )


def _schedule_time_out_run(wait: ReviewWait, flow_run_id: str) -> UUID:
    """Schedules a run of the same deployment for the time-out, so that a worker alone is enough to go on."""
    with get_client(sync_client=True) as client:
        return client.create_flow_run_from_deployment(
            UUID(str(runtime.deployment.id)),
            parameters=dict(runtime.flow_run.parameters),
            state=Scheduled(scheduled_time=wait.deadline + TIME_OUT_RUN_DELAY),
            tags=[TIME_OUT_TAG, flow_run_id],
        ).id


def input_if_resumed(workspace: Path) -> ReviewDone | None:
    """The input with which this run was resumed; None if it is not a resumed run."""
    record = _suspended_run(workspace)
    if record is None or record.flow_run_id != str(runtime.flow_run.id):
        return None
    # The server refuses a second suspension with the same key, and Prefect then returns the input of the first.
    done = suspend_flow_run(wait_for_input=ReviewDone, key=SUSPENSION_KEY, timeout=None)
    _end_wait(workspace, record)
    get_run_logger().info("The run goes on. %s", done.note)
    return done


def is_needless(workspace: Path) -> bool:
    """Whether this run was scheduled for the time-out of a wait that has ended."""
    tags, record = runtime.flow_run.tags, _suspended_run(workspace)
    return TIME_OUT_TAG in tags and (record is None or record.flow_run_id not in tags)


def is_time_out_run() -> bool:
    """Whether this run was scheduled for the time-out of a wait."""
    return TIME_OUT_TAG in runtime.flow_run.tags


def take_over(workspace: Path) -> datetime | None:
    """Cancels a suspended run, which this run of a deployment replaces. Returns its deadline; None if there is none."""
    record = _suspended_run(workspace)
    if record is None or runtime.deployment.id is None:
        return None
    with get_client(sync_client=True) as client:
        state = _state_of(client, record.flow_run_id)
        if state is not None and state.type in {StateType.PAUSED, StateType.SCHEDULED}:
            message = "Skipped: a later run waits for reviewers, or goes on, in its place."
            client.set_flow_run_state(UUID(record.flow_run_id), skipped_state(message), force=True)
            state = skipped_state(message)
    _end_wait(workspace, record)
    return datetime.fromisoformat(record.deadline) if state is not None and state.name == SKIPPED else None


def resume_if_met(workspace: Path) -> bool:
    """Resumes the workspace's suspended run if its quota is met or its time is over; returns whether it did.

    Call it after answers: without a suspended run it only looks for a file. Raises an error if Prefect's API does not
    answer.
    """
    record = _suspended_run(workspace)
    if record is None:
        return False
    since, deadline = datetime.fromisoformat(record.since), datetime.fromisoformat(record.deadline)
    reason = ReviewWait(workspace, load(workspace).review, since, deadline).reason_to_continue()
    if reason is None:
        return False
    with _client_of(record) as client:
        state = _state_of(client, record.flow_run_id)
        is_suspended = state is not None and state.type == StateType.PAUSED
        return is_suspended and _resume(client, UUID(record.flow_run_id), reason)


def resume_regularly(workspace: Path) -> None:
    """Calls `resume_if_met` in the background until this process ends."""

    def watch() -> None:
        while not threading.Event().wait(SCHEDULE_POLL_SECONDS):
            with suppress(Exception):  # the server may be restarting, or params.yaml be half written
                resume_if_met(workspace)

    threading.Thread(target=watch, name="review-resume", daemon=True).start()


def _suspended_run(workspace: Path) -> SuspendedRun | None:
    try:
        return SuspendedRun.read(Workspace(workspace).review_wait)
    except (FileNotFoundError, DamagedFile):
        return None


def _end_wait(workspace: Path, record: SuspendedRun) -> None:
    """Forgets the wait, and cancels the run that was scheduled for its time-out."""
    Workspace(workspace).review_wait.unlink(missing_ok=True)
    if record.time_out_run_id in {None, str(runtime.flow_run.id)}:
        return
    with get_client(sync_client=True) as client:
        state = _state_of(client, str(record.time_out_run_id))
        if state is not None and state.is_scheduled():
            final = skipped_state("Skipped: the wait for reviewers has ended.")
            client.set_flow_run_state(UUID(str(record.time_out_run_id)), final, force=True)


def _resume(client: SyncPrefectClient, flow_run_id: UUID, reason: str) -> bool:
    """Resumes the run with typed input; returns whether the server accepted that."""
    response = client.resume_flow_run(flow_run_id, run_input=ReviewDone(note=reason).model_dump())
    return response.status.value == "ACCEPT"


def _state_of(client: SyncPrefectClient, flow_run_id: str) -> State[Any] | None:
    """The state of a flow run; None if the server does not have it."""
    try:
        return client.read_flow_run(UUID(flow_run_id)).state
    except ObjectNotFound:
        return None


@contextmanager
def _client_of(record: SuspendedRun) -> Iterator[SyncPrefectClient]:
    """A client of the server on which the run was suspended: a review server may be started without PREFECT_API_URL."""
    with temporary_settings({PREFECT_API_URL: record.api_url}), get_client(sync_client=True) as client:
        yield client

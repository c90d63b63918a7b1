"""Reports a run: its name and tags, artifacts, events, notifications, and the copies of its pages.

flows/grow.py calls it at the start, at the end, and if an error stops the run. A failure here does not fail the run: it
is a warning in the run's log.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import get_run_logger, runtime
from prefect.exceptions import MissingContextError

from seedling.config.params import Params, load
from seedling.errors import SeedlingError, WorkspaceBusy
from seedling.flows import run_names
from seedling.flows.artifacts import publish_metrics, publish_result
from seedling.flows.events import RunEvent, emit, events_of_error, events_of_outcomes
from seedling.flows.failures import errors_as_failed_states
from seedling.flows.notifications import notify
from seedling.gates.history import gate_history, record_gate
from seedling.records import run_description
from seedling.records.results import read_evaluation_summary
from seedling.records.run_history import label_issues, last_record, read_inputs, record_run
from seedling.records.run_records import RunInputs, RunRecord
from seedling.records.summaries import headline
from seedling.serving.report_links import page_links
from seedling.serving.report_store import upload_pages
from seedling.versioning.ledger import Outcome
from seedling.workspace import Workspace

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class MonitoredRun:
    """The start of a run: its time, its inputs, and the record of the previous run."""

    workspace: Path
    inputs: RunInputs
    last_record: RunRecord | None
    started: datetime = field(default_factory=lambda: datetime.now().astimezone())

    @property
    def record_name(self) -> str:
        """The name of the run's record and of its DVC experiment."""
        return run_description.experiment_name(self.started)


def name_at_start() -> str:
    """The name of the flow run until its inputs are known, for Prefect's `flow_run_name`."""
    workspace = Path(str(runtime.flow_run.parameters.get("workspace", ".")))
    return run_names.flow_run_name(workspace, datetime.now().astimezone())


def run_started(workspace: Path, inputs_folder: Path | None = None) -> MonitoredRun:
    """Names and tags the run by what has changed since the last one.

    inputs_folder: the folder of the run's inputs, None for the workspace.
    """
    run = MonitoredRun(workspace.resolve(), read_inputs(inputs_folder or workspace), last_record(workspace))
    with never_failing("name the run"):
        _name(run, run_description.what_changed(run.inputs, run.last_record))
    return run


def record_and_draw(run: MonitoredRun, outcomes: Sequence[Outcome]) -> None:
    """Writes the run's record, and the pages of runs and gates."""
    from seedling.report.gates_page import write_gates_page
    from seedling.report.history_page import write_history_page

    changed = run_description.what_changed(run.inputs, run.last_record, outcomes)
    outcome = run_description.outcome_of(outcomes)
    record_run(
        run.workspace,
        run.record_name,
        outcomes,
        started=run.started,
        what_changed=changed,
        outcome=outcome,
        inputs=run.inputs,
    )
    with never_failing("write the pages of runs and gates"):
        _record_restored_gates(run.workspace, outcomes)
        write_gates_page(run.workspace)
        write_history_page(run.workspace)


def run_ended(run: MonitoredRun, outcomes: Sequence[Outcome]) -> None:
    """Names and tags the run by its result, publishes the result, copies the pages, and sends the events."""
    params = load(run.workspace)
    changed = run_description.what_changed(run.inputs, run.last_record, outcomes)
    outcome = run_description.outcome_of(outcomes)
    with never_failing("name the run"):
        _name(run, changed, outcome)
    if params.reports.store and outcome != "nothing new":
        with never_failing(f"copy the pages to {params.reports.store}"):
            upload_pages(run.workspace, params.reports.store)
    if outcome == "nothing new":
        with never_failing("write the page of the gates"):
            _redraw_gates_that_pass_again(run.workspace, outcomes)
    with never_failing("publish the result"):
        links = page_links(run.workspace, params.reports)
        publish_result(run.workspace, _result(run.workspace), links, outcomes)
        if outcome != "nothing new":
            publish_metrics(run.workspace)
    former_issues = run.last_record and run.last_record.label_issues
    issues_before = former_issues.flagged if former_issues else 0
    _send_events(run, changed, params, events_of_outcomes(outcomes, label_issues(run.workspace), issues_before))


def run_stopped(run: MonitoredRun | None, workspace: Path, error: BaseException) -> None:
    """Tags the run as failed and sends the events; an overlap with another run is not a failure."""
    from seedling.errors import GateFailed

    if isinstance(error, WorkspaceBusy):
        return
    run = run or MonitoredRun(workspace.resolve(), read_inputs(workspace), last_record(workspace))
    try:
        params = load(run.workspace)
    except SeedlingError:
        params = None
    outcome: run_description.RunOutcome = "gate failed" if isinstance(error, GateFailed) else "failed"
    changed = run_description.what_changed(run.inputs, run.last_record)
    with never_failing("name the run"):
        _name(run, changed, outcome)
    _send_events(run, changed, params, events_of_error(error))


def monitored(function: Callable[P, R]) -> Callable[P, R]:
    """Wraps a flow's function, whose first argument is the workspace: errors are reported, and end as one sentence."""

    @functools.wraps(function)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        _current.clear()
        try:
            return function(*arguments, **named)
        except Exception as error:
            workspace = Path(str(named.get("workspace", arguments[0] if arguments else ".")))
            with never_failing("report the failure"):
                run_stopped(_current.get("run"), workspace, error)
            raise

    return errors_as_failed_states(run)


_current: dict[str, MonitoredRun] = {}


def begin(workspace: Path, inputs_folder: Path | None = None) -> MonitoredRun:
    """Calls run_started and stores the run for `monitored`: a process has at most one run at a time."""
    _current["run"] = run_started(workspace, inputs_folder)
    return _current["run"]


def _name(run: MonitoredRun, changed: str, outcome: run_description.RunOutcome | None = None) -> None:
    name = run_names.flow_run_name(run.workspace, run.started, changed)
    effort = str(run.inputs.params.get("effort", "normal"))
    run_names.rename_run(name, run_names.tags(run.workspace, effort, outcome))


def send_events(run: MonitoredRun, events: Sequence[RunEvent], links: Mapping[str, str]) -> None:
    """Sends events during a run. links: pages in addition to those of the run, title → address."""
    changed = run_description.what_changed(run.inputs, run.last_record)
    _send_events(run, changed, load(run.workspace), events, links)


def _send_events(
    run: MonitoredRun,
    changed: str,
    params: Params | None,
    events: Sequence[RunEvent],
    more_links: Mapping[str, str] | None = None,
) -> None:
    links = page_links(run.workspace, params.reports) if params else {}
    context = {
        "run": run_names.flow_run_name(run.workspace, run.started, changed),
        "flow_run_id": runtime.flow_run.id,
        "links": {**links, **(more_links or {})},
        "result": _result(run.workspace),
    }
    for event in events:
        with never_failing(f"emit the event {event.kind}"):
            emit(run.workspace, event, context)
    with never_failing("send the notifications"):
        for problem in notify(run.workspace, params.notify if params else None, events, context):
            _logger().warning(problem)


def _result(workspace: Path) -> str:
    evaluation = read_evaluation_summary(Workspace(workspace).reports)
    return "" if evaluation is None else headline(evaluation)


def _record_restored_gates(workspace: Path, outcomes: Sequence[Outcome]) -> bool:
    """Records the gates of unchanged or restored generations whose last recorded gate failed: they pass again.

    Returns whether there were any.
    """
    last, is_recorded = {record.stage: record for record in gate_history(workspace)}, False
    for outcome in outcomes:
        checks, last_record_of_stage = outcome.summary.checks, last.get(outcome.stage)
        if checks and (last_record_of_stage is None or not last_record_of_stage.passed):
            record_gate(workspace, outcome.stage, checks)
            is_recorded = True
    return is_recorded


def _redraw_gates_that_pass_again(workspace: Path, outcomes: Sequence[Outcome]) -> None:
    """Updates the page of gates after bad data was removed, when no stage has to run again."""
    if _record_restored_gates(workspace, outcomes):
        from seedling.report.gates_page import write_gates_page

        write_gates_page(workspace)


@contextmanager
def never_failing(what: str) -> Iterator[None]:
    """Within the block, an error becomes a warning in the run's log. what: what the block does."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (an error of a server, a store or a library does not change the run's result)
        sentence = str(error).partition("\n")[0] if isinstance(error, SeedlingError) else type(error).__name__
        _logger().warning("Seedling could not %s: %s", what, sentence)
        _logger().debug("Details", exc_info=True)


def _logger() -> logging.Logger | logging.LoggerAdapter[Any]:
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("seedling")

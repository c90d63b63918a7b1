"""grow: scrape → validate → augment ∥ synthesize → train → pseudo-label and train again, in rounds → evaluate.

seedling run        # this flow on the current workspace
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from seedling.config.params import MAX_ROUNDS, load, set_value
from seedling.config.sources import visited_sources
from seedling.errors import WorkspaceBusy
from seedling.flows.artifacts import progress_artifact, publish_description
from seedling.flows.monitoring import MonitoredRun, begin, monitored, name_at_start, record_and_draw, run_ended
from seedling.flows.reviewing import (
    ReviewWait,
    ended_state,
    input_if_resumed,
    is_needless,
    is_time_out_run,
    planned_wait,
    take_over,
    wait_for_reviewers,
    waits_after,
)
from seedling.flows.scheduling import skip_missed_runs, skipped_state
from seedling.flows.stopping import ends_with_parent, remember_flow_run, stops_in_time
from seedling.lock import workspace_lock
from seedling.pipeline import stages
from seedling.records.summaries import summary
from seedling.runner import gate_changed, write_page
from seedling.tasks.augment import augment
from seedling.tasks.evaluate import evaluate
from seedling.tasks.pseudo_label import pseudo_label
from seedling.tasks.scrape import scrape
from seedling.tasks.synthesize import synthesize
from seedling.tasks.train import train
from seedling.tasks.validate import validate
from seedling.upgrading import upgrade_workspace
from seedling.versioning.ledger import Ledger, Outcome, open_ledger
from seedling.versioning.pushing import is_push_due, prepare_remote, push_workspace
from seedling.web_visits import has_open_visit
from seedling.workspace import Workspace


@task(name="push", cache_policy=NO_CACHE, persist_result=False)
def push(workspace: str) -> str | None:
    """Pushes data, outputs, run cache and experiments.

    If the remote is unreachable, logs a warning and returns it; the next run tries again.
    """
    failure = push_workspace(Path(workspace))
    if failure is not None:
        get_run_logger().warning(failure)
    return failure


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    outcomes: one per stage; changed_during_run: inputs that changed meanwhile, which the next run uses.
    """

    name: str
    outcomes: list[Outcome]
    changed_during_run: list[str]


@flow(name="grow", flow_run_name=name_at_start, persist_result=False, on_running=[remember_flow_run])
@monitored
def grow(workspace: str = ".", as_of: str | None = None, visit: bool = False) -> RunResult | State[Any]:
    """Grows the dataset and the model of one workspace, and accepts a round only if it is clearly better.

    as_of: written to params.yaml first; visit: whether to visit the web sources for new rows.
    """
    return pushed(Path(workspace), run_pipeline(Path(workspace).resolve(), as_of=as_of, visit=visit))


@flow(name="grow on schedule", flow_run_name=name_at_start, persist_result=False, on_running=[remember_flow_run])
@monitored
def scheduled(workspace: str) -> RunResult | State[Any]:
    """Runs `grow` for a deployment, and visits the web sources again.

    Ends as Cancelled, named "Skipped", if another run holds the workspace.
    """
    ends_with_parent()
    with stops_in_time(keep_handlers=True):
        if runtime.deployment.id is not None:
            skip_missed_runs(UUID(str(runtime.deployment.id)), keep_latest=False)
        if is_needless(Path(workspace)):
            return skipped_state("Skipped: no run waits for reviewers any more.")
        try:
            visit = not is_time_out_run()
            return pushed(Path(workspace), run_pipeline(Path(workspace).resolve(), as_of=None, visit=visit))
        except WorkspaceBusy as error:
            return skipped_state(f"Skipped: {error}")


def pushed(workspace: Path, result: RunResult | State[Any]) -> RunResult | State[Any]:
    """Pushes what no run has pushed yet, if params.yaml has `push: true`. Returns the run's result.

    result: a state if a person ended the run, which then pushes nothing.
    """
    if not isinstance(result, RunResult):
        return result
    folder = workspace.resolve()
    with suppress(WorkspaceBusy), workspace_lock(folder):  # a run that started meanwhile pushes when it ends
        if is_push_due(folder):
            push(str(folder))
    return result


@dataclass(frozen=True)
class WaitsForReviewers:
    """A run that has reached the stage after which it waits."""

    run: MonitoredRun
    wait: ReviewWait


def run_pipeline(workspace: Path, *, as_of: str | None, visit: bool) -> RunResult | State[Any]:
    """Runs the stages in order, and once more after reviewers have answered if the run waits for them."""
    done = input_if_resumed(workspace)
    if done is None:
        deadline = take_over(workspace)
        result = run_stages(workspace, as_of=as_of, visit=visit, may_wait=True, deadline=deadline)
        if isinstance(result, RunResult):
            return result
        done = wait_for_reviewers(result.run, result.wait)
    if not done.continue_run:
        return ended_state(done)
    result = run_stages(workspace, as_of=None, visit=False, may_wait=False)
    assert isinstance(result, RunResult)  # noqa: S101  (it waits only once)
    return result


def run_stages(
    workspace: Path, *, as_of: str | None, visit: bool, may_wait: bool, deadline: datetime | None = None
) -> RunResult | WaitsForReviewers:
    """Runs the stages in order on a snapshot of the workspace's inputs; none of them if nothing has changed.

    may_wait: whether to stop at the stage after which params.yaml lets the run wait; deadline: of an earlier wait.
    """
    paths = Workspace(workspace)
    folder = str(workspace)
    with workspace_lock(workspace):
        ledger = prepare(workspace, as_of)
        with ledger.snapshotted() as snapshot:
            params, run = load(snapshot.folder), begin(workspace, snapshot.folder)
            publish_description(workspace, params)
            visits = (visit or has_open_visit(workspace)) and bool(visited_sources(params.scrape.sources))
            was_stopped = paths.open_run.is_file()
            if not visits and not was_stopped and (unchanged := nothing_changed(ledger, workspace)):
                run_ended(run, unchanged)
                return RunResult(run.record_name, unchanged, [])
            paths.open_run.touch()
            wait = planned_wait(workspace, params.review, deadline) if may_wait else None
            outcomes = [scrape(folder, visit=visits), validate(folder)]
            if outcomes[-1].how != "unchanged" or not paths.data_page.exists():
                write_page("validate", workspace)
            if waits_after(wait, "validate") and has_more_to_do(ledger, outcomes):
                return WaitsForReviewers(run, wait)
            futures = [augment.submit(folder), synthesize.submit(folder)]
            outcomes += [future.result() for future in futures]
            outcomes.append(train(folder, 0))
            for number in range(1, MAX_ROUNDS + 1):  # after the decision that stops the loop, rounds are skipped
                outcomes.append(pseudo_label(folder, number))
                if number == 1 and waits_after(wait, "pseudo_label") and has_more_to_do(ledger, outcomes):
                    return WaitsForReviewers(run, wait)
                outcomes.append(train(folder, number))
            outcomes.append(evaluate(folder))
            return conclude(run, outcomes, was_stopped=was_stopped)


def has_more_to_do(ledger: Ledger, outcomes: list[Outcome]) -> bool:
    """Whether a stage of the run had something to do, or a later one has."""
    return any(outcome.how != "unchanged" for outcome in outcomes) or bool(ledger.states())


def prepare(workspace: Path, as_of: str | None) -> Ledger:
    """Prepares a run: writes `as_of` to params.yaml, upgrades the workspace, and also reports progress to Prefect."""
    if as_of is not None:
        set_value(workspace, ["scrape", "as_of"], as_of)
    load(workspace)
    for change in upgrade_workspace(workspace):
        get_run_logger().info(change)
    prepare_remote(workspace, load(workspace))
    ledger = open_ledger(workspace)
    ledger.watch = _watching(workspace, getattr(ledger.watch, "terminal", ledger.watch))
    return ledger


def nothing_changed(ledger: Ledger, workspace: Path) -> list[Outcome]:
    """Returns the outcome "unchanged" of every stage if all stages and pages are up to date, else an empty list."""
    assert ledger.snapshot is not None  # noqa: S101  (run_pipeline has taken one)
    began = time.perf_counter()
    pages = [Workspace(workspace).report_page, Workspace(workspace).data_page]
    if not all(page.is_file() for page in pages) or ledger.states():
        return []
    table = stages().values()
    if any(gate_changed(stage, workspace, ledger.snapshot.folder) for stage in table):
        return []
    seconds = time.perf_counter() - began
    outcomes = [Outcome(stage.name, "unchanged", seconds / len(table), summary(stage, workspace)) for stage in table]
    for outcome in outcomes:
        ledger.finished(outcome)
    get_run_logger().info("Nothing has changed since the last run.")
    return outcomes


def _watching(workspace: Path, terminal: Callable[[str], Any]) -> Callable[[str], Any]:
    from contextlib import contextmanager

    @contextmanager
    def watch(stage: str) -> Any:
        with terminal(stage) as inner, progress_artifact(workspace, stage, inner) as progress:
            yield progress

    watch.terminal = terminal  # type: ignore[attr-defined]  # a second run in this process wraps it again
    return watch


def conclude(run: MonitoredRun, outcomes: list[Outcome], *, was_stopped: bool) -> RunResult:
    """Concludes a run: writes record, pages and result, and saves a run with changes as a DVC experiment.

    was_stopped: whether the previous run ended during its stages, so that their output has no experiment yet.
    """
    workspace, ledger = run.workspace, open_ledger(run.workspace)
    changed = was_stopped or any(outcome.how != "unchanged" for outcome in outcomes)
    changed_during_run = ledger.changed_during_run() if changed else []
    if changed:
        record_and_draw(run, outcomes)
        ledger.sort_lock()
    if changed or not Workspace(workspace).report_page.exists():
        write_page("evaluate", workspace)
    if changed:
        ledger.save_experiment(run.record_name)
    Workspace(workspace).open_run.unlink(missing_ok=True)
    run_ended(run, outcomes)
    if changed_during_run:
        get_run_logger().info("Inputs that changed during the run, for the next one: %s", ", ".join(changed_during_run))
    return RunResult(run.record_name, outcomes, changed_during_run)

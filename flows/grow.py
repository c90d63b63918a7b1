"""grow: scrape → validate → augment ∥ synthesize → train → pseudo-label and train again, in rounds → evaluate.

seedling run        # this flow on the current workspace
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from seedling.config.params import load, set_value
from seedling.config.sources import visited_sources
from seedling.errors import GateFailed, SeedlingError, SourceUnreachable, WorkspaceBusy
from seedling.flows.artifacts import (
    progress_artifact,
    publish,
    publish_description,
    publish_gate,
    publish_rounds,
    said,
)
from seedling.flows.failures import StageTask, errors_as_failed_states
from seedling.flows.monitoring import MonitoredRun, begin, monitored, name_at_start, record_and_draw, run_ended
from seedling.flows.scheduling import skip_missed_runs, skipped_state
from seedling.flows.stopping import ends_with_parent, remember_flow_run, stops_in_time
from seedling.lock import workspace_lock
from seedling.parallel.executor import pieces_at_once, spread_by
from seedling.pipeline import ROUNDS, stages
from seedling.records.summaries import summary
from seedling.runner import gate_changed, write_page
from seedling.upgrading import upgrade_workspace
from seedling.versioning.ledger import Ledger, Outcome, open_ledger
from seedling.versioning.pushing import is_push_due, prepare_remote, push_workspace
from seedling.web_visits import has_open_visit, visit_sources

OPEN_RUN = Path(".seedling", "open_run")  # there while a run works, and after one that was stopped


def stage_task(kind: str, **options: Any) -> Any:
    """A Prefect task that brings one stage up to date, named as the stage."""

    def bring(workspace: str, stage: str, visit: bool = False) -> Outcome:
        try:
            with spread_by(over_task_runner):
                outcome = _brought(Path(workspace), stage, visit=visit)
        except GateFailed as error:
            with suppress(Exception):  # an artifact that Prefect refuses must not hide the gate's no
                publish_gate(Path(workspace), stage, error.checks)
            raise
        publish(Path(workspace), outcome)
        if kind == "train" and outcome.how != "unchanged":
            publish_rounds(Path(workspace), int(stage.partition("@")[2]))
        get_run_logger().info("%s: %s in %.1f s. %s", stage, outcome.how, outcome.seconds, said(outcome))
        return outcome

    bring.__doc__ = f"Brings the stage {kind} up to date."
    options = {"task_run_name": "{stage}", "cache_policy": NO_CACHE, "persist_result": False, **options}
    return StageTask(task(name=kind, **options)(errors_as_failed_states(bring)))


def _brought(workspace: Path, stage: str, *, visit: bool) -> Outcome:
    """The stage's outcome; with `visit`, the sources on the web are asked first."""
    ledger = open_ledger(workspace)
    outcome = visit_sources(ledger) if visit else None
    return outcome or ledger.run(stage)


def over_task_runner(work: Callable[[int], Any], places: Sequence[int], name: str) -> list[Any]:
    """Each part of a stage's work, a fold of train, as a Prefect task of its own on the flow's task runner.

    The parts share what is in memory, so the runner must be one of threads, as Prefect's own is; no more of them work at
    once than there are cores, or GPUs.
    """
    room = BoundedSemaphore(pieces_at_once())

    def part(place: int) -> Any:
        with room:
            return work(place)

    run = task(name=name, task_run_name=f"{name} {{place}}", cache_policy=NO_CACHE, persist_result=False)(part)
    return [one.result() for one in [run.submit(place) for place in places]]


def _worth_another_try(task: Any, run: Any, state: Any) -> bool:
    """Not for what a person must mend: bad input stays bad, and a gate's no is a no."""
    try:
        state.result()
    except SourceUnreachable:
        return True
    except SeedlingError:
        return False
    except Exception:  # noqa: BLE001  (whatever else a site or a disk did to us)
        return True
    return False


scrape = stage_task("scrape", retries=2, retry_delay_seconds=10, retry_condition_fn=_worth_another_try)
validate = stage_task("validate")
augment = stage_task("augment")
synthesize = stage_task("synthesize")
train = stage_task("train")
pseudo_label = stage_task("pseudo_label")
evaluate = stage_task("evaluate")


@task(name="push", cache_policy=NO_CACHE, persist_result=False)
def push(workspace: str) -> str | None:
    """Pushes data, outputs, run cache and experiments; a remote that cannot be reached is a warning, and the next run tries again."""
    failure = push_workspace(Path(workspace))
    if failure is not None:
        get_run_logger().warning(failure)
    return failure


@dataclass(frozen=True)
class RunResult:
    """outcomes: of each stage, none where nothing had changed; changed_during_run: what the next run will take."""

    name: str
    outcomes: list[Outcome]
    changed_during_run: list[str]


@flow(name="grow", flow_run_name=name_at_start, persist_result=False, on_running=[remember_flow_run])
@monitored
def grow(workspace: str = ".", as_of: str | None = None, visit: bool = False) -> RunResult:
    """Grows the dataset and the model of one workspace, and keeps a round only where it is not worse.

    as_of: written into params.yaml first. visit: asks the sources on the web for new rows.
    """
    return pushed(Path(workspace), run_pipeline(Path(workspace).resolve(), as_of=as_of, visit=visit))


@flow(name="grow on schedule", flow_run_name=name_at_start, persist_result=False, on_running=[remember_flow_run])
@monitored
def scheduled(workspace: str) -> RunResult | State[Any]:
    """What a deployment runs: as grow, and the sources on the web are visited again.

    Ends as Cancelled, named "Skipped", where another run holds the workspace.
    """
    ends_with_parent()
    with stops_in_time(keep_handlers=True):
        if runtime.deployment.id is not None:
            skip_missed_runs(UUID(str(runtime.deployment.id)), keep_latest=False)
        try:
            return pushed(Path(workspace), run_pipeline(Path(workspace).resolve(), as_of=None, visit=True))
        except WorkspaceBusy as error:
            return skipped_state(f"Skipped: {error}")


def pushed(workspace: Path, result: RunResult) -> RunResult:
    """Pushes where `push: true` asks for it and something was not pushed yet, also by an earlier run; gives the run's result."""
    place = workspace.resolve()
    with suppress(WorkspaceBusy), workspace_lock(place):  # a run that began meanwhile pushes at its own end
        if is_push_due(place):
            push(str(place))
    return result


def run_pipeline(workspace: Path, *, as_of: str | None, visit: bool) -> RunResult:
    """The stages in their order, on a snapshot of the workspace's inputs; nothing but the check where nothing changed."""
    place = str(workspace)
    with workspace_lock(workspace):
        ledger = prepare(workspace, as_of)
        with ledger.snapshotted() as snapshot:
            params, run = load(snapshot.folder), begin(workspace, snapshot.folder)
            publish_description(workspace, params)
            visits = (visit or has_open_visit(workspace)) and bool(visited_sources(params.scrape.sources))
            was_stopped = (workspace / OPEN_RUN).is_file()
            if not visits and not was_stopped and (unchanged := nothing_changed(ledger, workspace)):
                run_ended(run, unchanged)
                return RunResult(run.record_name, unchanged, [])
            (workspace / OPEN_RUN).touch()
            outcomes = [scrape(place, "scrape", visit=visits), validate(place, "validate")]
            if outcomes[-1].how != "unchanged" or not (workspace / "reports" / "data.html").exists():
                write_page("validate", workspace)
            made = [augment.submit(place, "augment"), synthesize.submit(place, "synthesize")]
            outcomes += [future.result() for future in made]
            outcomes.append(train(place, "train@0"))
            for number in range(1, ROUNDS + 1):  # after the verdict that stops the loop, rounds only say so
                outcomes.append(pseudo_label(place, f"pseudo_label@{number}"))
                outcomes.append(train(place, f"train@{number}"))
            outcomes.append(evaluate(place, "evaluate"))
            return conclude(run, outcomes, was_stopped=was_stopped)


def prepare(workspace: Path, as_of: str | None) -> Ledger:
    """Before the pipeline: the name of a visit goes into params.yaml, and progress goes to Prefect's UI, too."""
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
    """The outcome "unchanged" of every stage, where all of them and their pages are up to date; else none."""
    assert ledger.snapshot is not None  # noqa: S101  (a run takes one)
    began = time.perf_counter()
    pages = [workspace / "reports" / name for name in ("report.html", "data.html")]
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

    watch.terminal = terminal  # type: ignore[attr-defined]  # a second run in this process wraps this one, not watch
    return watch


def conclude(run: MonitoredRun, outcomes: list[Outcome], *, was_stopped: bool) -> RunResult:
    """After the pipeline: the record, the pages, the result; a run that changed anything becomes a DVC experiment.

    was_stopped: whether the run before this one ended within its stages, so that what they made has no experiment yet.
    """
    workspace, ledger = run.workspace, open_ledger(run.workspace)
    changed = was_stopped or any(outcome.how != "unchanged" for outcome in outcomes)
    changed_during_run = ledger.changed_during_run() if changed else []
    if changed:
        record_and_draw(run, outcomes)
        ledger.sort_lock()
    if changed or not (workspace / "reports" / "report.html").exists():
        write_page("evaluate", workspace)
    if changed:
        ledger.save_experiment(run.record_name)
    (workspace / OPEN_RUN).unlink(missing_ok=True)
    run_ended(run, outcomes)
    if changed_during_run:
        get_run_logger().info("Changed during the run, for the next one: %s", ", ".join(changed_during_run))
    return RunResult(run.record_name, outcomes, changed_during_run)

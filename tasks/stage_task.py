"""Shared by the tasks of all stages: the options of the Prefect task, the run of the stage, and its artifacts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from seedling.errors import GateFailed
from seedling.flows.artifacts import outcome_line, publish, publish_gate
from seedling.flows.failures import StageTask, errors_as_failed_states
from seedling.parallel.executor import pieces_at_once, using_executor
from seedling.versioning.ledger import Ledger, Outcome, open_ledger


def stage_task(run_name: str, **options: Any) -> Callable[[Callable[..., Outcome]], StageTask]:
    """Turns a function into the Prefect task of a stage, with the function's name.

    run_name: the name of each task run, with the function's parameters in braces. options: further options of
    `prefect.task`.
    """

    def decorate(function: Callable[..., Outcome]) -> StageTask:
        make_task = task(
            name=function.__name__, task_run_name=run_name, cache_policy=NO_CACHE, persist_result=False, **options
        )
        return StageTask(make_task(errors_as_failed_states(function)))

    return decorate


def bring_up_to_date(
    workspace: str, stage: str, before_stage: Callable[[Ledger], Outcome | None] | None = None
) -> Outcome:
    """Runs the stage if its inputs changed, and publishes its rows and the checks of its gate as artifacts.

    before_stage: called first; if it returns an outcome, the stage itself does not run.
    Raises the errors of the stage; the checks of a failed gate are published first.
    """
    folder = Path(workspace)
    ledger = open_ledger(folder)
    try:
        with using_executor(on_task_runner):
            outcome = (before_stage(ledger) if before_stage is not None else None) or ledger.run(stage)
    except GateFailed as error:
        with suppress(Exception):  # an artifact that Prefect refuses must not hide the failed gate
            publish_gate(folder, stage, error.checks)
        raise
    publish(folder, outcome)
    get_run_logger().info("%s: %s in %.1f s. %s", stage, outcome.how, outcome.seconds, outcome_line(outcome))
    return outcome


def on_task_runner(function: Callable[[int], Any], pieces: Sequence[int], name: str) -> list[Any]:
    """Runs each piece of a stage's work, such as a fold of train, as a Prefect task on the flow's task runner.

    The pieces share memory, so the task runner must use threads, as Prefect's default does. At most `pieces_at_once()`
    pieces run at the same time.
    """
    slots = BoundedSemaphore(pieces_at_once())

    def run_piece(piece: int) -> Any:
        with slots:
            return function(piece)

    piece_task = task(name=name, task_run_name=f"{name} {{piece}}", cache_policy=NO_CACHE, persist_result=False)(
        run_piece
    )
    return [future.result() for future in [piece_task.submit(piece) for piece in pieces]]

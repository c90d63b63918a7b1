"""grow: scrape → validate → augment ∥ synthesize → train → pseudo-label and train again, in rounds → evaluate.

seedling run        # this flow on the current workspace
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE

from flows.artifacts import (
    progress_artifact,
    publish,
    publish_description,
    publish_gate,
    publish_headline,
    publish_metrics,
    said,
)
from flows.history import record_run
from flows.ledger import Outcome, open_ledger
from tasks.busy import workspace_lock
from tasks.errors import GateFailed, SeedlingError, SourceUnreachable
from tasks.parallel import spread_by, usable_cores
from tasks.params import load
from tasks.stages import ROUNDS, write_page
from tasks.summaries import headline


def stage_task(kind: str, **options: Any) -> Any:
    """A Prefect task that brings one stage up to date, named as the stage."""

    def bring(workspace: str, stage: str, force: bool = False) -> Outcome:
        try:
            with spread_by(over_task_runner):
                outcome = open_ledger(Path(workspace)).run(stage, force=force)
        except GateFailed as error:
            with suppress(Exception):  # an artifact that Prefect refuses must not hide the gate's no
                publish_gate(stage, error.checks)
            raise
        publish(outcome)
        if kind == "train" and outcome.how != "unchanged":
            publish_metrics(Path(workspace) / "models", int(stage.partition("@")[2]))
        get_run_logger().info("%s: %s in %.1f s. %s", stage, outcome.how, outcome.seconds, said(outcome))
        return outcome

    bring.__doc__ = f"Brings the stage {kind} up to date."
    return task(name=kind, task_run_name="{stage}", cache_policy=NO_CACHE, persist_result=False, **options)(bring)


def over_task_runner(work: Callable[[int], Any], places: Sequence[int], name: str) -> list[Any]:
    """Each part of a stage's work, a fold of train, as a Prefect task of its own on the flow's task runner.

    The parts share what is in memory, so the runner must be one of threads, as Prefect's own is; no more of them work at
    once than there are cores, or GPUs.
    """
    room = BoundedSemaphore(max(2, usable_cores()))

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


@flow(name="grow", flow_run_name=lambda: f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-grow", persist_result=False)
def grow(workspace: str = ".", as_of: str | None = None) -> list[Outcome]:
    """Grows the dataset and the model of one workspace, and keeps a round only where it is not worse."""
    place = str(Path(workspace).resolve())
    with workspace_lock(Path(place)):
        prepare(place, as_of)
        publish_description(Path(place), load(Path(place)))
        outcomes = [scrape(place, "scrape"), validate(place, "validate")]
        if outcomes[-1].how != "unchanged" or not (Path(place) / "reports" / "data.html").exists():
            write_page("validate", Path(place))
        made = [augment.submit(place, "augment"), synthesize.submit(place, "synthesize")]
        outcomes += [one.result() for one in made]
        outcomes.append(train(place, "train@0"))
        for number in range(1, ROUNDS + 1):  # after the verdict that stops the loop, rounds only say so
            outcomes.append(pseudo_label(place, f"pseudo_label@{number}"))
            outcomes.append(train(place, f"train@{number}"))
        outcomes.append(evaluate(place, "evaluate"))
        conclude(Path(place), outcomes)
        return outcomes


@flow(name="grow on schedule", persist_result=False)
def scheduled(workspace: str) -> None:
    """What a deployment runs: as grow, and the sites are visited again on each new day."""
    grow(workspace, as_of=datetime.now(UTC).date().isoformat())


def prepare(workspace: str, as_of: str | None) -> None:
    """Before the line: what the schedule says goes into params.yaml, what the user changed in data/ into data.dvc."""
    from tasks.params import set_value

    if as_of is not None:
        set_value(Path(workspace), ["scrape", "as_of"], as_of)
    load(Path(workspace))
    ledger = open_ledger(Path(workspace))
    ledger.watch = _watching(getattr(ledger.watch, "terminal", ledger.watch))
    ledger.track_data()


def _watching(terminal: Callable[[str], Any]) -> Callable[[str], Any]:
    from contextlib import contextmanager

    @contextmanager
    def watch(stage: str) -> Any:
        with terminal(stage) as inner, progress_artifact(stage, inner) as progress:
            yield progress

    watch.terminal = terminal  # type: ignore[attr-defined]  # a second run in this process wraps this one, not watch
    return watch


def conclude(workspace: Path, outcomes: list[Outcome]) -> None:
    """After the line: Data Docs, report, headline; a run that changed anything becomes a DVC experiment."""
    from tasks.gates.asking import build_data_docs

    report, documents = workspace / "reports" / "report.html", workspace / ".seedling"
    changed = any(one.how != "unchanged" for one in outcomes)
    name = runtime.flow_run.name or "run"
    data_docs = documents / "gx" / "uncommitted" / "data_docs" / "local_site" / "index.html"
    if changed:
        record_run(workspace, name, outcomes)
        open_ledger(workspace).sort_lock()
        if any(one.how == "done" for one in outcomes):
            data_docs = build_data_docs(documents)
    if changed or not report.exists():
        write_page("evaluate", workspace)
    if changed:
        open_ledger(workspace).save_experiment(name)
    metrics = json.loads((workspace / "reports" / "metrics.json").read_text(encoding="utf-8"))
    pages = {"report": report, "data": workspace / "reports" / "data.html", "Great Expectations Data Docs": data_docs}
    publish_headline(headline(metrics), {name: page.as_uri() for name, page in pages.items()})

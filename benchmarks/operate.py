"""Run a schedule on PostgreSQL with random disturbances; count lost rows, wrong results and leftover processes.

    python benchmarks/operate.py [--runs 30] [--seed 0]

A small workspace of texts is deployed on a schedule and pushes each accepted run to an S3 store. Each run meets one
disturbance at a random moment: signal 9, 15 or 2 to the run while one of its stages runs, each stage in turn; signal
9 to the worker or to the Prefect server (both are started again); 30 seconds without the S3 store; new rows before or
during the run; or none. After each run the schedule pauses and the workspace is checked. At the end, an undisturbed
run must contain every row that was ever added.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from anyio import run as run_async
from record import Measurement, mean_with_interval, write

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from services import (
    BIN,
    TERMINAL_STATES,
    Service,
    deployment_of,
    flow_run_processes,
    post,
    postgres,
    prefect_server,
    process_worker,
    processes_with,
    runs_of,
    s3_store,
    wait_for,
)
from text_workspaces import TABLE, append_letters, call, deploy, make_letters_workspace, texts_of

SIGNALS = {"signal 9": signal.SIGKILL, "signal 15": signal.SIGTERM, "signal 2": signal.SIGINT}
DISTURBANCES = ("none", "rows before", "rows during", *SIGNALS, "worker killed", "server killed", "S3 outage")
ENDS = {  # allowed final states of a run, by disturbance
    **{disturbance: {"COMPLETED"} for disturbance in DISTURBANCES},
    **{
        name: {"COMPLETED", "CRASHED", "CANCELLED"} for name in SIGNALS
    },  # completed: the signal arrived after the last stage
}
INTERVAL_SECONDS = 15
OUTAGE_SECONDS = 30
STAGES = ("scrape", "validate", "augment", "synthesize", "train@0", "pseudo_label@1", "evaluate")
MAX_DELAY_SECONDS = 25  # of disturbances other than signals, after the run's start; about one run
MAX_DELAY_IN_STAGE_SECONDS = 1.5
MAX_RUN_SECONDS = 900
ORPHAN_GRACE_SECONDS = 60


@dataclass
class Observation:
    """The observed state of one run and of the workspace after it."""

    disturbance: str
    state: str
    seconds: float
    nothing_new: bool
    status_is_true: bool
    orphans: int
    workspace_bytes: int
    database_bytes: int


@dataclass
class Site:
    """The services and the workspace of the benchmark."""

    server: Service
    worker: Service
    store: Service
    workspace: Path
    database: str
    rows: int
    observations: list[Observation] = field(default_factory=list)

    @property
    def deployment(self) -> dict[str, Any]:
        """The workspace's deployment on the server."""
        return wait_for(lambda: deployment_of(self.server, self.workspace.name), what="the deployment")

    def pause(self, paused: bool) -> None:
        """Pause or resume the schedule."""
        url = f"{self.server.env['PREFECT_API_URL']}/deployments/{self.deployment['id']}"
        wait_for(lambda: httpx.patch(url, json={"paused": paused}, timeout=60).is_success, what="the paused schedule")

    def add_rows(self, count: int) -> None:
        """Append new letters to the workspace's table."""
        append_letters(self.workspace / "data" / TABLE, self.rows, count)
        self.rows += count


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder; files that vanish during the count are skipped."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_size if path.is_file() else 0
    return total


def database_size(url: str) -> int:
    """Return the bytes of Prefect's database."""

    async def ask() -> int:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            return int(await connection.fetchval("select pg_database_size(current_database())"))
        finally:
            await connection.close()

    return run_async(ask)


def rows_read(workspace: Path) -> int:
    """Return the number of rows that the scrape generation was made from, kept and rejected."""
    manifest = json.loads((workspace / "generations/scrape/manifest.json").read_text(encoding="utf-8"))
    return int(manifest["rows"]["in"])


def status_is_true(site: Site, *, run_completed: bool, data_changed: bool) -> bool:
    """Return whether `dvc status` reports the true state.

    If it reports scrape as up to date, the generation must have as many rows as data/. After a completed run without
    new data, it must report everything as up to date.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"],
        cwd=site.workspace,
        env=dict(site.server.env),
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode != 0:
        return False
    changed = set(json.loads(done.stdout or "{}"))
    if run_completed and not data_changed and changed:
        return False
    is_current = not changed & {"scrape", "data.dvc"}
    return not is_current or rows_read(site.workspace) == len(texts_of(site.workspace / "data" / TABLE))


def wait_for_stage(site: Site, stage: str, run_id: str) -> None:
    """Return once a task of that stage runs, or the run has ended without one."""
    url = f"{site.server.env['PREFECT_API_URL']}/flow_runs/{run_id}"

    def works_or_ended() -> bool:
        run = httpx.get(url, timeout=60).raise_for_status().json()
        if run["state"]["type"] in TERMINAL_STATES:
            return True
        started = {"start_time": {"after_": run["start_time"]}}  # tasks of a killed run stay Running in Prefect
        body = {"task_runs": {"name": {"any_": [stage]}, "state": {"type": {"any_": ["RUNNING"]}}, **started}}
        return bool(post(site.server, "task_runs/filter", body))

    wait_for(works_or_ended, MAX_RUN_SECONDS, f"stage {stage}")


def disturb(site: Site, disturbance: str, run_id: str, stage: str, share: float) -> None:
    """Wait for the moment that `share` (0 to 1) selects, then apply the disturbance to the run."""
    if disturbance in SIGNALS:
        wait_for_stage(site, stage, run_id)
        time.sleep(share * MAX_DELAY_IN_STAGE_SECONDS)
    else:
        time.sleep(share * MAX_DELAY_SECONDS)
    if disturbance in SIGNALS:
        for process in flow_run_processes(site.server.env):
            with suppress(OSError):
                os.kill(process.pid, SIGNALS[disturbance])
    elif disturbance == "rows during":
        site.add_rows(3)
    elif disturbance in {"worker killed", "server killed"}:
        service = site.worker if disturbance.startswith("worker") else site.server
        service.kill(signal.SIGKILL)
        service.start()
    elif disturbance == "S3 outage":
        site.store.kill(signal.SIGKILL)
        time.sleep(OUTAGE_SECONDS)
        site.store.start()


def wait_for_run(site: Site, earlier_run_ids: set[str]) -> dict[str, Any]:
    """Return the next run of the deployment that starts."""

    def working() -> dict[str, Any] | None:
        runs = [run for run in runs_of(site.server, site.deployment["id"]) if run["id"] not in earlier_run_ids]
        started = {"RUNNING", *TERMINAL_STATES} - {"CANCELLED"}  # canceled: due while another run was active
        return next((run for run in runs if run["state"]["type"] in started), None)

    return wait_for(working, MAX_RUN_SECONDS, "a scheduled run")


def wait_for_end(site: Site, run_id: str) -> dict[str, Any]:
    """Return the run once it has ended, or its state after MAX_RUN_SECONDS."""
    url = f"{site.server.env['PREFECT_API_URL']}/flow_runs/{run_id}"

    def ended() -> dict[str, Any] | None:
        run = httpx.get(url, timeout=60).raise_for_status().json()
        return run if run["state"]["type"] in TERMINAL_STATES else None

    try:
        return wait_for(ended, MAX_RUN_SECONDS)
    except AssertionError:
        return dict(httpx.get(url, timeout=60).json())


def orphans_after(site: Site) -> int:
    """Return the number of flow-run processes that still live after the grace period."""
    with suppress(AssertionError):
        wait_for(lambda: not flow_run_processes(site.server.env), ORPHAN_GRACE_SECONDS)
    return len(flow_run_processes(site.server.env))


def observe_run(site: Site, disturbance: str, stage: str, draw: random.Random) -> None:
    """Let the schedule start one run, disturb it, and record the result."""
    if disturbance == "rows before" or disturbance in SIGNALS or (disturbance != "none" and draw.random() < 0.7):
        site.add_rows(draw.randint(1, 4))
    earlier_run_ids = {run["id"] for run in runs_of(site.server, site.deployment["id"])}
    site.pause(False)
    run = wait_for_run(site, earlier_run_ids)
    rows_at_start = site.rows
    disturber = threading.Thread(target=disturb, args=(site, disturbance, run["id"], stage, draw.random()))
    disturber.start()
    site.pause(True)
    run = wait_for_end(site, run["id"])
    disturber.join()
    orphans = orphans_after(site)
    state = run["state"]["type"]
    site.observations.append(
        Observation(
            disturbance,
            state,
            float(run["total_run_time"]),
            "nothing new" in run["tags"],
            status_is_true(site, run_completed=state == "COMPLETED", data_changed=site.rows != rows_at_start),
            orphans,
            size_of(site.workspace),
            database_size(site.database),
        )
    )
    print(site.observations[-1], flush=True)


def lost_rows(site: Site) -> int:
    """Return the number of added texts that are in no row of the scrape generation, kept or rejected."""
    from seedling.dataset.generation import payloads, read, read_rejected

    folder = site.workspace / "generations/scrape"
    ids = [*read(folder)["id"], *read_rejected(folder)["id"]]
    texts = {str(payload) for _, payload in payloads([folder], ids)}
    return len(set(texts_of(site.workspace / "data" / TABLE)) - texts)


def seconds_without_news(site: Site, repeats: int = 3) -> list[float]:
    """Return the wall times of `seedling run` on the warm server with nothing new."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call([BIN / "seedling", "run"], site.workspace, site.server.env)
        seconds.append(time.perf_counter() - began)
    return seconds


def clean(site: Site) -> None:
    """Run `seedling clean` for all but the last run and for every flow run that has ended."""
    call([BIN / "seedling", "clean", "--apply", "--keep", "1", "--days", "0"], site.workspace, site.server.env)


def measure(site: Site, runs: int, draw: random.Random, command: str) -> list[Measurement]:
    """Run the plan, clean, and return the measurements."""
    setting = f"{runs} scheduled runs on PostgreSQL"
    numbers: list[Measurement] = []

    def add(system: str, metric: str, values: float | list[float], unit: str) -> None:
        listed = values if isinstance(values, list) else [values]
        value, low, high = mean_with_interval(listed)
        numbers.append(Measurement(setting, system, metric, value, low, high, unit, len(listed), command))

    plan = [DISTURBANCES[number % len(DISTURBANCES)] for number in range(runs - 2)]
    draw.shuffle(plan)
    stages = cycle(draw.sample(STAGES, len(STAGES)))
    for disturbance in ["none", *plan, "none"]:
        observe_run(site, disturbance, next(stages) if disturbance in SIGNALS else "", draw)
    observations = site.observations
    add("Seedling", "rows lost", float(lost_rows(site)), "rows")
    wrong = [observation for observation in observations if observation.state not in ENDS[observation.disturbance]]
    add("Seedling", "runs that ended wrong", float(len(wrong)), "runs")
    add(
        "Seedling",
        "processes left behind",
        float(sum(observation.orphans for observation in observations)),
        "processes",
    )
    add(
        "Seedling",
        "runs after which dvc status was not true",
        float(sum(not observation.status_is_true for observation in observations)),
        "runs",
    )
    ended = Counter(observation.state for observation in observations)
    for state in sorted(ended):
        add("Prefect", f"runs that ended {state.capitalize()}", float(ended[state]), "runs")
    growths = [("workspace_bytes", "workspace growth per run"), ("database_bytes", "database growth per run")]
    for attribute, metric in growths:
        sizes = [getattr(observation, attribute) for observation in observations]
        add("storage", metric, [float(after - before) / 1e6 for before, after in pairwise(sizes)], "MB")
    quiet = [observation.seconds for observation in observations if observation.nothing_new]
    if quiet:
        add("Prefect", "scheduled run with nothing new, warm server", quiet, "s")
    add("Seedling", "seedling run with nothing new, warm server", seconds_without_news(site), "s")
    add("storage", "workspace before clean", size_of(site.workspace) / 1e6, "MB")
    clean(site)
    add("storage", "workspace after clean", size_of(site.workspace) / 1e6, "MB")
    add("storage", "database after clean", database_size(site.database) / 1e6, "MB")
    true_after_clean = status_is_true(site, run_completed=True, data_changed=False)
    add("Seedling", "dvc status true after clean (1: yes)", float(true_after_clean), "share")
    return numbers


def main() -> None:
    """Run the benchmark and write results/operate.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--no-record", action="store_true", help="print the numbers without writing results/operate.csv"
    )
    arguments = parser.parse_args()
    if arguments.runs < 3:
        parser.error("--runs: at least 3, of which the first and the last one are undisturbed")
    command = f"python benchmarks/operate.py --runs {arguments.runs} --seed {arguments.seed}"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seedling-operate-")))
        database = stack.enter_context(postgres())
        store, keys = stack.enter_context(s3_store(folder, "seedling"))
        server = prefect_server(folder, database)
        server.env = {**server.env, **keys, "PYTHONPATH": str(Path(__file__).parents[1])}
        stack.callback(server.stop)
        server.start()
        prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
        call([*prefect, "work-pool", "create", "default", "--type", "process"], folder, server.env)
        workspace = make_letters_workspace(folder / "letters", 60, server.env, "s3://seedling/letters")
        worker = process_worker(server, folder / "elsewhere")
        stack.callback(worker.stop)
        worker.start()
        site = Site(server, worker, store, workspace, database, 60)
        deploy(workspace, server, INTERVAL_SECONDS, paused=True)
        numbers = measure(site, arguments.runs, random.Random(arguments.seed), command)  # noqa: S311  (a plan, no secret)
        worker.stop()
        server.stop()
        left = processes_with("PREFECT_HOME", server.env["PREFECT_HOME"])
        if left:
            raise RuntimeError(f"left behind: {left}")
    if arguments.no_record:
        print(*numbers, sep="\n")
    else:
        write("operate", numbers)


if __name__ == "__main__":
    main()

"""Scheduled runs in a row on PostgreSQL, disturbed at random: what is lost, what ends wrong, what stays behind, how storage grows.

    python benchmarks/operate.py [--runs 30] [--seed 0]

A small workspace of texts is deployed on a schedule and pushes each accepted run to an S3 store. Each run meets one
disturbance at a random moment: signal 9, 15 or 2 to the run while one of its stages works, each stage in turn, signal 9 to the worker or to the Prefect server (both are
started again), 30 seconds without the S3 store, new rows before or during the run, or none. After each run the schedule
pauses and the workspace is checked. At the end an undisturbed run must have every row that was ever added.
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
from record import Found, mean_with_interval, write

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
ENDS = {  # how a run may end that met the disturbance
    **{disturbance: {"COMPLETED"} for disturbance in DISTURBANCES},
    **{
        name: {"COMPLETED", "CRASHED", "CANCELLED"} for name in SIGNALS
    },  # completed: the signal came after the last stage
}
INTERVAL_SECONDS = 15
OUTAGE_SECONDS = 30
STAGES = ("scrape", "validate", "augment", "synthesize", "train@0", "pseudo_label@1", "evaluate")
MAX_DELAY_SECONDS = 25  # of another disturbance than a signal after the run's start; a run takes about as long
MAX_DELAY_IN_STAGE_SECONDS = 1.5
MAX_RUN_SECONDS = 900
ORPHAN_GRACE_SECONDS = 60


@dataclass
class Observation:
    """What was seen of one run and after it."""

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
    """The services and the workspace that the benchmark runs on."""

    server: Service
    worker: Service
    store: Service
    workspace: Path
    database: str
    rows: int
    observations: list[Observation] = field(default_factory=list)

    @property
    def deployment(self) -> dict[str, Any]:
        """The workspace's deployment, as the server has it."""
        return wait_for(lambda: deployment_of(self.server, self.workspace.name), what="the deployment")

    def pause(self, paused: bool) -> None:
        """Pauses or resumes the schedule."""
        url = f"{self.server.env['PREFECT_API_URL']}/deployments/{self.deployment['id']}"
        wait_for(lambda: httpx.patch(url, json={"paused": paused}, timeout=60).is_success, what="the paused schedule")

    def add_rows(self, count: int) -> None:
        """Appends new letters to the workspace's table."""
        append_letters(self.workspace / "data" / TABLE, self.rows, count)
        self.rows += count


def size_of(folder: Path) -> int:
    """Bytes of all files below; files that vanish meanwhile do not count."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_size if path.is_file() else 0
    return total


def database_size(url: str) -> int:
    """Bytes of Prefect's database."""

    async def ask() -> int:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            return int(await connection.fetchval("select pg_database_size(current_database())"))
        finally:
            await connection.close()

    return run_async(ask)


def rows_read(workspace: Path) -> int:
    """Rows that the scrape generation was made from: those kept and those rejected."""
    manifest = json.loads((workspace / "generations/scrape/manifest.json").read_text(encoding="utf-8"))
    return int(manifest["rows"]["in"])


def status_is_true(site: Site, *, run_completed: bool, data_changed: bool) -> bool:
    """Whether `dvc status` says what is there.

    Where it calls scrape up to date, the generation has as many rows as data/; after a completed run without new data
    it calls everything up to date.
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
    """Returns once a task of that stage works, or the run has ended without one."""
    url = f"{site.server.env['PREFECT_API_URL']}/flow_runs/{run_id}"

    def works_or_ended() -> bool:
        run = httpx.get(url, timeout=60).raise_for_status().json()
        if run["state"]["type"] in TERMINAL_STATES:
            return True
        begun = {"start_time": {"after_": run["start_time"]}}  # tasks of a killed run stay Running in Prefect's record
        body = {"task_runs": {"name": {"any_": [stage]}, "state": {"type": {"any_": ["RUNNING"]}}, **begun}}
        return bool(post(site.server, "task_runs/filter", body))

    wait_for(works_or_ended, MAX_RUN_SECONDS, f"stage {stage}")


def disturb(site: Site, disturbance: str, run_id: str, stage: str, share: float) -> None:
    """Waits for a moment that `share` (0 to 1) names, then does to the run what the disturbance says."""
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


def wait_for_run(site: Site, known: set[str]) -> dict[str, Any]:
    """The next run of the deployment that works."""

    def working() -> dict[str, Any] | None:
        runs = [run for run in runs_of(site.server, site.deployment["id"]) if run["id"] not in known]
        begun = {"RUNNING", *TERMINAL_STATES} - {"CANCELLED"}  # canceled: due while another one was at work
        return next((run for run in runs if run["state"]["type"] in begun), None)

    return dict(wait_for(working, MAX_RUN_SECONDS, "a scheduled run") or {})


def wait_for_end(site: Site, run_id: str) -> dict[str, Any]:
    """The run once it has ended, or as it is after MAX_RUN_SECONDS."""
    url = f"{site.server.env['PREFECT_API_URL']}/flow_runs/{run_id}"

    def ended() -> dict[str, Any] | None:
        run = httpx.get(url, timeout=60).raise_for_status().json()
        return run if run["state"]["type"] in TERMINAL_STATES else None

    try:
        return dict(wait_for(ended, MAX_RUN_SECONDS) or {})
    except AssertionError:
        return dict(httpx.get(url, timeout=60).json())


def orphans_after(site: Site) -> int:
    """Processes of flow runs that still live a while after their run has ended."""
    with suppress(AssertionError):
        wait_for(lambda: not flow_run_processes(site.server.env), ORPHAN_GRACE_SECONDS)
    return len(flow_run_processes(site.server.env))


def observe_run(site: Site, disturbance: str, stage: str, draw: random.Random) -> None:
    """Lets the schedule start one run, disturbs it, and notes what became of it."""
    if disturbance == "rows before" or disturbance in SIGNALS or (disturbance != "none" and draw.random() < 0.7):
        site.add_rows(draw.randint(1, 4))
    known = {run["id"] for run in runs_of(site.server, site.deployment["id"])}
    site.pause(False)
    run = wait_for_run(site, known)
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
    """Texts that were added and are in no row of the validate generation, kept or rejected."""
    from seedling.dataset.generation import payloads, read, read_rejected

    folder = site.workspace / "generations/scrape"
    ids = [*read(folder)["id"], *read_rejected(folder)["id"]]
    texts = {str(payload) for _, payload in payloads([folder], ids)}
    return len(set(texts_of(site.workspace / "data" / TABLE)) - texts)


def seconds_without_news(site: Site, repeats: int = 3) -> list[float]:
    """Wall time of `seedling run` on the warm server where nothing is new."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call([BIN / "seedling", "run"], site.workspace, site.server.env)
        seconds.append(time.perf_counter() - began)
    return seconds


def clean(site: Site) -> None:
    """`seedling clean` of all but the last run, and of every flow run that has ended."""
    call([BIN / "seedling", "clean", "--apply", "--keep", "1", "--days", "0"], site.workspace, site.server.env)


def measure(site: Site, runs: int, draw: random.Random, command: str) -> list[Found]:
    """Runs as many times, cleans, and gives the numbers."""
    setting = f"{runs} scheduled runs on PostgreSQL"
    numbers: list[Found] = []

    def add(system: str, metric: str, values: float | list[float], unit: str) -> None:
        listed = values if isinstance(values, list) else [values]
        value, low, high = mean_with_interval(listed)
        numbers.append(Found(setting, system, metric, value, low, high, unit, len(listed), command))

    plan = [DISTURBANCES[number % len(DISTURBANCES)] for number in range(runs - 2)]
    draw.shuffle(plan)
    stages = cycle(draw.sample(STAGES, len(STAGES)))
    for disturbance in ["none", *plan, "none"]:
        observe_run(site, disturbance, next(stages) if disturbance in SIGNALS else "", draw)
    seen = site.observations
    add("Seedling", "rows lost", float(lost_rows(site)), "rows")
    wrong = [one for one in seen if one.state not in ENDS[one.disturbance]]
    add("Seedling", "runs that ended wrong", float(len(wrong)), "runs")
    add("Seedling", "processes left behind", float(sum(one.orphans for one in seen)), "processes")
    add(
        "Seedling",
        "runs after which dvc status was not true",
        float(sum(not one.status_is_true for one in seen)),
        "runs",
    )
    ended = Counter(one.state for one in seen)
    for state in sorted(ended):
        add("Prefect", f"runs that ended {state.capitalize()}", float(ended[state]), "runs")
    growths = [("workspace_bytes", "workspace growth per run"), ("database_bytes", "database growth per run")]
    for attribute, metric in growths:
        sizes = [getattr(one, attribute) for one in seen]
        add("storage", metric, [float(after - before) / 1e6 for before, after in pairwise(sizes)], "MB")
    quiet = [one.seconds for one in seen if one.nothing_new]
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
    """Writes results/operate.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--no-record", action="store_true", help="print the numbers without writing results/operate.csv"
    )
    given = parser.parse_args()
    if given.runs < 3:
        parser.error("--runs: at least 3, of which the first and the last one are undisturbed")
    command = f"python benchmarks/operate.py --runs {given.runs} --seed {given.seed}"
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
        numbers = measure(site, given.runs, random.Random(given.seed), command)  # noqa: S311  (a plan, no secret)
        worker.stop()
        server.stop()
        left = processes_with("PREFECT_HOME", server.env["PREFECT_HOME"])
        if left:
            raise RuntimeError(f"left behind: {left}")
    if given.no_record:
        print(*numbers, sep="\n")
    else:
        write("operate", numbers)


if __name__ == "__main__":
    main()

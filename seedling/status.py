"""`seedling status`: the rows and the state of each stage, the running stage, and the latest result.

The command takes no lock and changes nothing, so it also works during a run.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from seedling.config.params import load
from seedling.gates.history import gate_history
from seedling.lock import running_process
from seedling.pipeline import stages
from seedling.records.headline_metrics import headline_metrics
from seedling.records.pushes import PushRecord
from seedling.records.results import read_evaluation_summary
from seedling.records.run_records import read_run_records
from seedling.records.summaries import StageSummary, headline, summary
from seedling.runner import gate_changed
from seedling.terminal.console import PrintableConsole
from seedling.versioning.pushing import read_push_state
from seedling.versioning.storage import locked_output_paths, read_states
from seedling.workspace import Workspace

EXIT_CODES = {"up to date": 0, "gate failed": 1, "work to do": 3, "running": 4}  # 2 is an error, as in every command
STYLES = {"up to date": "green", "missing": "dim", "running": "cyan", "gate failed": "red"}


@dataclass(frozen=True)
class StageStatus:
    """The state of a stage, and its row counts if it has rows."""

    name: str
    state: str
    rows_in: int | None = None
    rows_kept: int | None = None
    rows_rejected: int | None = None
    note: str = ""


@dataclass(frozen=True)
class ActiveRun:
    """A run that is active. process: its id, None if only DVC's locks are known; since: its start; stages: running."""

    process: int | None
    since: str | None
    stages: list[str]


@dataclass(frozen=True)
class WorkspaceStatus:
    """The state of a workspace for monitoring. state: a key of EXIT_CODES."""

    workspace: str
    state: str
    stages: list[StageStatus]
    running: ActiveRun | None = None
    failed_gates: list[str] = field(default_factory=list)
    headline: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    last_run: dict[str, str] | None = None
    runs: int = 0
    push: PushRecord | None = None

    @property
    def exit_code(self) -> int:
        """0 up to date, 1 the last gate failed, 3 work to do, 4 running."""
        return EXIT_CODES[self.state]


def read_status(workspace: Path) -> WorkspaceStatus:
    """Read the workspace without a lock. Raises InputError if the folder is not a workspace."""
    load(workspace)
    running = _running(workspace)
    states = read_states(workspace)
    stage_statuses, failed_gates = [], []
    gates = {record.stage: record for record in gate_history(workspace)}  # the latest record per stage
    for name, stage in stages().items():
        stage_summary = summary(stage, workspace) if (workspace / stage.output).exists() else StageSummary()
        state = states.get(name, "up to date")
        if state == "up to date" and gate_changed(stage, workspace):
            state = "expectations changed"
        if name in gates and not gates[name].passed:
            failed_gates.append(name)
            state = "gate failed"
        if running is not None and name in running.stages:
            state = "running"
        rows = stage_summary.rows
        rows_in, kept, rejected = (None, None, None) if rows is None else (rows.rows_in, rows.kept, rows.rejected)
        stage_statuses.append(StageStatus(name, state, rows_in, kept, rejected, stage_summary.note))
    evaluation, past_runs = read_evaluation_summary(Workspace(workspace).reports), read_run_records(workspace)
    is_current = not states and all(stage.state == "up to date" for stage in stage_statuses)
    state = "up to date" if is_current else "gate failed" if failed_gates else "work to do"
    return WorkspaceStatus(
        workspace=str(workspace),
        state="running" if running is not None else state,
        stages=stage_statuses,
        running=running,
        failed_gates=failed_gates,
        headline=None if evaluation is None else headline(evaluation),
        metrics={} if evaluation is None else headline_metrics(evaluation).as_json(),
        last_run={"name": past_runs[-1].name, "ended": past_runs[-1].ended} if past_runs else None,
        runs=len(past_runs),
        push=read_push_state(workspace),
    )


def show_status(workspace: Path, *, as_json: bool = False) -> int:
    """Print the status as a table or as JSON; return the exit code."""
    status = read_status(workspace)
    if as_json:
        push = None if status.push is None else status.push.model_dump(exclude={"version"})
        print(json.dumps({**asdict(status), "push": push, "exit_code": status.exit_code}, indent=2))
    else:
        _print_status(status)
    return status.exit_code


def _running(workspace: Path) -> ActiveRun | None:
    process, paths = running_process(workspace), locked_output_paths(workspace)
    if process is None and not paths:
        return None
    running_stages = [
        name
        for name, stage in stages().items()
        if any(path == stage.output or path.startswith(f"{stage.output}/") for path in paths)
    ]
    start_time = None
    if process is not None:
        start_timestamp = Workspace(workspace).run_pid.stat().st_mtime
        start_time = datetime.fromtimestamp(start_timestamp).astimezone().isoformat(timespec="seconds")
    return ActiveRun(process, start_time, running_stages)


def _stage_table(stage_statuses: list[StageStatus]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, justify in (
        ("stage", "left"),
        ("state", "left"),
        ("in", "right"),
        ("kept", "right"),
        ("rejected", "right"),
        ("", "left"),
    ):
        table.add_column(name, justify=justify, header_style="dim")  # type: ignore[arg-type]
    for stage in stage_statuses:
        row_counts = [
            "" if count is None else f"{count:,}" for count in (stage.rows_in, stage.rows_kept, stage.rows_rejected)
        ]
        table.add_row(stage.name, Text(stage.state, style=STYLES.get(stage.state, "yellow")), *row_counts, stage.note)
    return table


def _print_status(status: WorkspaceStatus) -> None:
    console = PrintableConsole()
    console.print(_stage_table(status.stages))
    if status.headline:
        console.print(f"\n{status.headline}", highlight=False)
    if status.last_run:
        run_count = "1 run" if status.runs == 1 else f"{status.runs} runs"
        console.print(
            f"{run_count}; the latest, {status.last_run['name']}, ended {status.last_run['ended']}", highlight=False
        )
    if status.push and not status.push.complete:
        console.print(f"Not pushed: {status.push.message}", style="yellow", highlight=False)
    if status.running:
        running_stages = ", ".join(status.running.stages) or "between stages"
        since = f" since {status.running.since}" if status.running.since else ""
        process = f" (process {status.running.process})" if status.running.process else ""
        console.print(f"A run{process} is active{since}: {running_stages}.", style="cyan", highlight=False)
    elif status.failed_gates:
        console.print(
            f"The gate of {', '.join(status.failed_gates)} failed: the rows are in quarantine/. Fix the data or the "
            "gate, then `seedling run`.",
            style="red",
            highlight=False,
        )
    elif status.state == "work to do":
        console.print("`seedling run` brings all stages up to date.")

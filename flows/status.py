"""`seedling status`: each stage's rows, whether it is up to date, and the last result."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.history import runs
from flows.ledger import open_ledger
from tasks.params import load
from tasks.reading import read_json
from tasks.stages import gate_changed, stages
from tasks.summaries import headline, summary


def show_status(workspace: Path) -> None:
    """Prints the table. Raises InputError where the folder is no workspace."""
    load(workspace)
    console, states = Console(), open_ledger(workspace).states()
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
    for name, stage in stages().items():
        found = summary(stage, workspace) if (workspace / stage.output).exists() else {}
        numbers = [f"{found[key]:,}" if key in found else "" for key in ("in", "kept", "rejected")]
        if name not in states and gate_changed(stage, workspace):
            states[name] = "expectations changed"
        state = states.get(name, "up to date")
        style = {"up to date": "green", "missing": "dim"}.get(state, "yellow")
        table.add_row(name, f"[{style}]{state}[/]", *numbers, str(found.get("note", "")))
    console.print(table)
    metrics = workspace / "reports" / "metrics.json"
    if metrics.is_file():
        console.print(f"\n{headline(read_json(metrics))}", highlight=False)
    if past := runs(workspace):
        many = "1 run" if len(past) == 1 else f"{len(past)} runs"
        console.print(f"{many}, the last one {past[-1].name}, ended {past[-1].record['ended']}", highlight=False)
    if any(state != "up to date" for state in states.values()):
        console.print("`seedling run` brings all of it up to date.")

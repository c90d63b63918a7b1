"""The live table of stages that `seedling run` shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from seedling.pipeline import stages
from seedling.progress import Progress

if TYPE_CHECKING:
    from seedling.versioning.ledger import Outcome

SIGNS = {"unchanged": ("=", "dim"), "restored": ("<", "cyan"), "done": ("+", "green")}


@dataclass
class Work:
    """A stage that is being worked on."""

    began: float
    what: str = ""
    done: int = 0
    total: int | None = None
    first: float = 0.0


class Board:
    """Stages as rows: waiting, at work with a bar and the time left, or what became of them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._work: dict[str, Work] = {}
        self._outcomes: dict[str, Outcome] = {}

    @contextmanager
    def live(self) -> Iterator[None]:
        """Shows the table while the block runs; where the output is no terminal, only finished stages are printed."""
        if not self._console.is_terminal:
            yield
            return
        with Live(get_renderable=self.table, console=self._console, refresh_per_second=8):
            yield

    @contextmanager
    def watch(self, stage: str) -> Iterator[Progress]:
        """A stage's progress goes to its row."""
        with self._lock:
            self._work[stage] = Work(time.monotonic())

        def show(what: str, done: int, total: int | None) -> None:
            with self._lock:
                work = self._work[stage]
                if work.what != what:
                    work.first = time.monotonic()
                work.what, work.done, work.total = what, done, total

        yield show

    def finish(self, outcome: Outcome) -> None:
        """The stage is up to date."""
        with self._lock:
            self._outcomes[outcome.stage] = outcome
            self._work.pop(outcome.stage, None)
        if not self._console.is_terminal:
            sign, style = SIGNS[outcome.how]
            self._console.print(
                Text(f"{sign} {outcome.stage:15} {outcome.seconds:6.1f} s  ", style=style) + self._said(outcome),
                soft_wrap=True,
            )

    def table(self) -> Table:
        """The rows as they are now."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name, justify in (
            ("", "left"),
            ("stage", "left"),
            ("rows in", "right"),
            ("kept", "right"),
            ("rejected", "right"),
            ("s", "right"),
            ("", "left"),
        ):
            table.add_column(name, justify=justify, header_style="dim")  # type: ignore[arg-type]
        with self._lock:
            for name in stages():
                if (outcome := self._outcomes.get(name)) is not None:
                    table.add_row(*self._finished(outcome))
                elif (work := self._work.get(name)) is not None:
                    seconds = time.monotonic() - work.began
                    table.add_row("›", Text(name, style="bold"), "", "", "", f"{seconds:.0f}", self._bar(work))
                else:
                    table.add_row("·", Text(name, style="dim"))
        return table

    def _finished(self, outcome: Outcome) -> tuple[RenderableType, ...]:
        sign, style = SIGNS[outcome.how]
        numbers = [f"{outcome.summary[key]:,}" if key in outcome.summary else "" for key in ("in", "kept", "rejected")]
        return (
            Text(sign, style=style),
            Text(outcome.stage),
            *numbers,
            f"{outcome.seconds:.1f}",
            self._said(outcome, rows=False),
        )

    @staticmethod
    def _said(outcome: Outcome, *, rows: bool = True) -> Text:
        found, said = outcome.summary, Text()
        if rows and "in" in found:
            said.append(f"{found['in']:,} in, {found['kept']:,} kept, {found['rejected']:,} rejected")
        reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in found.get("reasons", {}).items())
        if reasons:
            said.append(f"{': ' if rows else ''}{reasons}", style="yellow")
        if found.get("note"):
            said.append(f"{'  ' if said else ''}{found['note']}")
        for one in found.get("checks", []):
            if not one["passed"]:
                column = one["arguments"].get("column")
                said.append(
                    f"  warning: {one['expectation']}{f' ({column})' if column else ''}: {one['observed']}",
                    style="yellow",
                )
        return said

    @staticmethod
    def _bar(work: Work) -> RenderableType:
        if not work.total:
            return Text(work.what + (f" {work.done:,}" if work.done else ""), style="dim")
        rate = work.done / max(time.monotonic() - work.first, 1e-6)
        left = f"{(work.total - work.done) / rate:.0f} s left" if work.done else ""
        row = Table.grid(padding=(0, 1))
        row.add_row(
            ProgressBar(work.total, work.done, width=20),
            Text(f"{work.what} {work.done:,}/{work.total:,} {left}", style="dim"),
        )
        return Group(row)

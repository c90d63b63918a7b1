"""The live table of stages that `seedling run` shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from seedling.pipeline import stages
from seedling.progress import AnnouncingProgress, Progress
from seedling.records.notes import reasons_phrase, skipped_rounds_note, warning_sentence

if TYPE_CHECKING:
    from seedling.versioning.ledger import Outcome

SIGNS = {"unchanged": ("=", "dim"), "restored": ("<", "cyan"), "done": ("+", "green")}


@dataclass
class RunningStage:
    """The progress of a running stage; times are of the monotonic clock."""

    started_at: float
    step: str = ""
    done: int = 0
    total: int | None = None
    step_started_at: float = 0.0


class LiveTable:
    """A table of the stages: pending, running with a progress bar and the remaining time, or finished."""

    def __init__(
        self, console: Console, *, collapse_skipped: bool = True, shown_stages: Sequence[str] | None = None
    ) -> None:
        """collapse_skipped: whether all skipped rounds are one line; shown_stages: None for all stages."""
        self._console, self._collapse_skipped = console, collapse_skipped
        self._shown_stages = list(stages()) if shown_stages is None else list(shown_stages)
        self._lock = threading.Lock()
        self._running: dict[str, RunningStage] = {}
        self._outcomes: dict[str, Outcome] = {}

    @contextmanager
    def live(self) -> Iterator[None]:
        """Shows the table within the block; if the output is not a terminal, only finished stages are printed."""
        if not self._console.is_terminal:
            yield
            return
        with Live(get_renderable=self.table, console=self._console, refresh_per_second=8):
            yield

    @contextmanager
    def watch(self, stage: str) -> Iterator[Progress]:
        """Yields a progress function that updates the stage's row."""
        with self._lock:
            self._running[stage] = RunningStage(time.monotonic())

        def show(what: str, done: int, total: int | None) -> None:
            with self._lock:
                running = self._running[stage]
                if running.step != what:
                    running.step_started_at = time.monotonic()
                running.step, running.done, running.total = what, done, total

        yield AnnouncingProgress(show, self._print_result)

    def _print_result(self, result: str) -> None:
        """Prints a result of the running stage, above the table if there is one."""
        self._console.print(result, style="green", highlight=False, soft_wrap=True)

    def finish(self, outcome: Outcome) -> None:
        """Shows that the stage is up to date."""
        with self._lock:
            self._outcomes[outcome.stage] = outcome
            self._running.pop(outcome.stage, None)
        if self._console.is_terminal:
            return
        if self._is_collapsed(outcome):
            with self._lock:  # other stages may end meanwhile
                note = self._skipped_note() if outcome.stage == self._first_skipped() else None
            if note is not None:
                self._console.print(f"- {note}", style="dim", soft_wrap=True)
            return
        sign, style = SIGNS[outcome.how]
        self._console.print(
            Text(f"{sign} {outcome.stage:15} {outcome.seconds:6.1f} s  ", style=style) + self._outcome_text(outcome),
            soft_wrap=True,
        )

    def _is_collapsed(self, outcome: Outcome) -> bool:
        return self._collapse_skipped and outcome.summary.is_skipped

    def _first_skipped(self) -> str | None:
        """The train stage of the first skipped round."""
        skipped = [name for name, outcome in self._outcomes.items() if outcome.summary.is_skipped]
        return next((name for name in stages() if name in skipped and name.startswith("train@")), None)

    def _skipped_note(self) -> str:
        """One line for all skipped rounds, with the reason of the first one."""
        name = str(self._first_skipped())
        reason = self._outcomes[name].summary.note.removeprefix("skipped: ")
        return skipped_rounds_note(int(name.partition("@")[2]), reason)

    def table(self) -> Table:
        """Renders the current rows."""
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
            for name in self._shown_stages:
                if (outcome := self._outcomes.get(name)) is not None and self._is_collapsed(outcome):
                    if name == self._first_skipped():
                        table.add_row("-", Text("rounds", style="dim"), "", "", "", "", self._skipped_note())
                elif outcome is not None:
                    table.add_row(*self._finished(outcome))
                elif (running := self._running.get(name)) is not None:
                    seconds = time.monotonic() - running.started_at
                    table.add_row("›", Text(name, style="bold"), "", "", "", f"{seconds:.0f}", self._bar(running))
                else:
                    table.add_row("·", Text(name, style="dim"))
        return table

    def _finished(self, outcome: Outcome) -> tuple[RenderableType, ...]:
        sign, style = SIGNS[outcome.how]
        rows = outcome.summary.rows
        numbers = ["", "", ""] if rows is None else [f"{count:,}" for count in (rows.rows_in, rows.kept, rows.rejected)]
        return (
            Text(sign, style=style),
            Text(outcome.stage),
            *numbers,
            f"{outcome.seconds:.1f}",
            self._outcome_text(outcome, rows=False),
        )

    @staticmethod
    def _outcome_text(outcome: Outcome, *, rows: bool = True) -> Text:
        summary, text = outcome.summary, Text()
        if rows and summary.rows is not None:
            counts = summary.rows
            text.append(f"{counts.rows_in:,} in, {counts.kept:,} kept, {counts.rejected:,} rejected")
        reasons = reasons_phrase(summary.reasons)
        if reasons:
            text.append(f"{': ' if rows else ''}{reasons}", style="yellow")
        if summary.note:
            text.append(f"{'  ' if text else ''}{summary.note}")
        for check in summary.checks:
            if not check.passed:
                text.append(f"{'  ' if text else ''}gate warning: {warning_sentence(check)}", style="yellow")
        return text

    @staticmethod
    def _bar(running: RunningStage) -> RenderableType:
        if not running.total:
            return Text(running.step + (f" {running.done:,}" if running.done else ""), style="dim")
        rate = running.done / max(time.monotonic() - running.step_started_at, 1e-6)
        left = f"{(running.total - running.done) / rate:.0f} s left" if running.done else ""
        row = Table.grid(padding=(0, 1))
        row.add_row(
            ProgressBar(running.total, running.done, width=20),
            Text(f"{running.step} {running.done:,}/{running.total:,} {left}", style="dim"),
        )
        return Group(row)

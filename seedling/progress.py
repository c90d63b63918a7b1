"""The progress callback of a stage; the terminal, Prefect and the tests each pass their own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """Called with the current activity, the number of finished items, and their total number (None if unknown)."""

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Report the progress."""


def silent(what: str, done: int, total: int | None) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class AnnouncingProgress:
    """A progress function that also prints results which are known before the stage ends."""

    report: Progress
    print_result: Callable[[str], None]

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Report the progress."""
        self.report(what, done, total)


def announce(progress: Progress, result: str) -> None:
    """Print a result of the running stage now; a plain progress function ignores it."""
    if isinstance(progress, AnnouncingProgress):
        progress.print_result(result)


def counted(items: Iterable[Item], progress: Progress, what: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items and report each of them to `progress`."""
    progress(what, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        progress(what, done, total)


@contextmanager
def terminal(stage: str) -> Iterator[Progress]:
    """Show a progress bar with the remaining time on standard error; nothing if that is not a terminal."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from seedling.terminal.console import PrintableConsole

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=PrintableConsole(stderr=True), transient=True) as bars:
        task = bars.add_task(stage, total=None)

        def show(what: str, done: int, total: int | None) -> None:
            bars.update(task, description=f"{stage}: {what}", completed=done, total=total)

        yield AnnouncingProgress(show, bars.console.print)

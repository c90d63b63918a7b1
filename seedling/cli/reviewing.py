"""Starts a review: prepares the rows, and serves the page or reviews in the terminal."""

from __future__ import annotations

import getpass
import os
import re
import signal
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from seedling.config.params import load
from seedling.errors import InputError
from seedling.lock import workspace_lock
from seedling.progress import terminal as terminal_progress
from seedling.report.suspicious_rows import MIN_ID_DIGITS
from seedling.review.decisions import decide
from seedling.review.log import reviewer_name
from seedling.review.rows import RowIds, read_review_rows
from seedling.review.session import ReviewSession
from seedling.terminal.console import PrintableConsole
from seedling.terminal.counts import counted_noun
from seedling.terminal.printable import printable
from seedling.upgrading import upgrade_workspace
from seedling.workspace import MANIFEST, Workspace


@dataclass(frozen=True)
class ReviewCommand:
    """A call of `seedling review`. overlap: replaces `review.overlap` of params.yaml."""

    workspace: Path
    reviewers: Sequence[str]
    split: str
    row_id: str | None
    overlap: float | None

    def names(self) -> list[str]:
        """The reviewers; without --reviewer, the user of this process."""
        return [reviewer_name(name) for name in self.reviewers] or [_user_name()]

    def _default_reviewer(self) -> str | None:
        """The name for answers without one in a file; None if the name of this process's user cannot be used."""
        try:
            return self.names()[0]
        except InputError:
            if self.reviewers:
                raise
            return None

    def prepare(self, *, refresh: bool) -> None:
        """Collect the rows if none were collected, or again, so that new files are in the queue."""
        load(self.workspace)
        paths = Workspace(self.workspace)
        is_collected = (paths.generation("scrape") / MANIFEST).is_file()
        if is_collected and not refresh:
            return
        from seedling.cli.live_table import LiveTable
        from seedling.cli.running import RunConsole
        from seedling.versioning.ledger import open_ledger

        console = RunConsole()
        # Before the first run, there may be too few labels for validate.
        stages = ("scrape", "validate") if (paths.generation("validate") / MANIFEST).is_file() else ("scrape",)
        with workspace_lock(self.workspace):
            upgrade_workspace(self.workspace)
            live_table, ledger = LiveTable(console, shown_stages=stages), open_ledger(self.workspace)
            ledger.watch, ledger.finished = live_table.watch, live_table.finish
            with live_table.live():
                ledger.run("scrape", visit=refresh)
                if "validate" in stages:
                    ledger.run("validate")

    def session(self) -> ReviewSession:
        """Read the rows and the answers so far."""
        session = ReviewSession.of(self.workspace, split=self.split, on_answers=self._on_answers())
        if self.overlap is not None:
            session.queue.shares = replace(session.queue.shares, overlap=self.overlap)
        return session

    def _on_answers(self) -> Callable[[], None]:
        """What to call after answers: it resumes a run that waits for them, without delaying the next answer."""

        def resume() -> None:
            if Workspace(self.workspace).review_wait.exists():
                from seedling.flows.reviewing import resume_if_met

                _never_failing(partial(resume_if_met, self.workspace))

        return lambda: threading.Thread(target=resume, name="resume of a waiting run", daemon=True).start()

    def serve(self, host: str, port: int, allowed_hosts: Sequence[str], *, open_browser: bool) -> None:
        """Serve the page until Ctrl-C or SIGTERM."""
        from seedling.review.server import ReviewServer

        console = PrintableConsole()
        with console.status("Reading the rows …"):
            session = self.session()
            row_id = self._first_row(session)
            server = ReviewServer(session, self.names(), host, port, allowed_hosts)
            server.start()
        addresses = {name: _with_row(address, row_id) for name, address in server.addresses.items()}
        for name, address in addresses.items():
            prefix = "" if len(addresses) == 1 else f"{name}: "
            console.print(f"{prefix}{address}", markup=False, highlight=False, soft_wrap=True)
        console.print(
            f"{counted_noun(server.session.queue.remaining, 'row')} to review. Answers are saved in "
            f"{Workspace(self.workspace).reviews}; the next `seedling run` uses them. Press Ctrl-C to stop.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        if open_browser and len(addresses) == 1 and _has_display():
            webbrowser.open(next(iter(addresses.values())))
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            server.wait()
        except KeyboardInterrupt:
            answers = len(server.session.queue.present_decisions().answers)
            console.print(f"Stopped. Saved: {counted_noun(answers, 'answer')}.", highlight=False)
        finally:
            server.stop()
            signal.signal(signal.SIGTERM, before)

    def _first_row(self, session: ReviewSession) -> str | None:
        return None if self.row_id is None else full_row_id(self.row_id, session.queue.rows.ids)

    def review_in_terminal(self) -> None:
        """Review texts in the terminal, for one reviewer."""
        from seedling.review.terminal import review_in_terminal

        names = self.names()
        if len(names) > 1:
            raise InputError("A terminal has one reviewer: pass --reviewer once.")
        session = self.session()
        answers = review_in_terminal(session, names[0], row_id=self._first_row(session))
        folder = Workspace(self.workspace).reviews
        print(f"{counted_noun(answers, 'answer')} saved in {folder}; the next `seedling run` uses them.")

    def export(self, folder: Path, file_format: str) -> None:
        """Write the rows for another tool."""
        from seedling.review.exchange import ExchangeFormat, export_rows
        from seedling.review.log import read_log

        decisions = decide(read_log(Workspace(self.workspace).reviews))
        rows = read_review_rows(self.workspace, decisions.classes, load(self.workspace).review.classes)
        collected = Workspace(self.workspace).generation("scrape")
        with terminal_progress("export") as progress:
            summary = export_rows(ExchangeFormat(file_format), rows, collected, decisions, folder, progress=progress)
        print(f"{summary.rows:,} rows in {summary.folder}.")
        if summary.left_out:
            print(f"{len(summary.left_out):,} images could not be decoded and are left out.")

    def import_answers(self, path: Path, file_format: str | None, renames: Sequence[str], *, add: bool) -> None:
        """Read another tool's answers into the review log."""
        from seedling.review.exchange import ExchangeFormat, LabelRules, import_answers, renames_of
        from seedling.review.log import ReviewLog, read_log

        params = load(self.workspace)
        decisions = decide(read_log(Workspace(self.workspace).reviews))
        rows = read_review_rows(self.workspace, decisions.classes, params.review.classes)
        with terminal_progress("import") as progress:
            result = import_answers(
                path,
                None if file_format is None else ExchangeFormat(file_format),
                rows,
                self.names()[0] if self.reviewers else None,
                default_reviewer=self._default_reviewer(),
                rules=LabelRules(renames_of(renames), add_classes=add, changes=decisions.classes),
                max_megapixels=params.max_megapixels,
                progress=progress,
            )
        new = result.store(ReviewLog(self.workspace))
        for sentence in result.counts.sentences():
            print(printable(sentence))
        print(f"{counted_noun(new, 'new answer')} saved in {Workspace(self.workspace).reviews}.")


def full_row_id(row_id: str, ids: RowIds) -> str:
    """The id that begins with these digits. Raises InputError unless it is exactly one."""
    if len(row_id) < MIN_ID_DIGITS:
        raise InputError(f"--row {row_id} is too short: give at least the first {MIN_ID_DIGITS} digits of the id.")
    row_ids = ids.with_prefix(row_id)
    if not row_ids:
        raise InputError(
            f"There is no row {row_id} to review; it may have been removed or rejected, or be of the other split "
            f"(--split). `seedling why {row_id}` tells what happened to it."
        )
    if len(row_ids) > 1:
        raise InputError(f"{len(row_ids):,} rows begin with {row_id}: give more digits, as in --row {row_ids[0]}.")
    return row_ids[0]


def _with_row(address: str, row_id: str | None) -> str:
    return address if row_id is None else address.replace("/?token=", f"/item/{row_id}?token=")


def _never_failing(call: Callable[[], object]) -> None:
    """Call it; an error, such as a Prefect server that does not respond, must not lose or delay an answer."""
    try:
        call()
    except Exception:  # noqa: BLE001  (the run goes on at its time-out)
        return


def _has_display() -> bool:
    """Whether a browser can open a window. Without one, `webbrowser` would start a text browser in this terminal."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _user_name() -> str:
    """The name of this process's user, as the name of a file."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "reviewer"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", user).strip("-._")
    if not name:
        raise InputError(f"The user name '{user}' cannot be the name of a reviewer: use --reviewer NAME.")
    return name[:64]

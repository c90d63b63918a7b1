"""The review page for tests: a server of `seedling review` in its own process, and Chromium with the page open."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from prefect_runs import free_port, wait_for

from seedling.config.params import set_value
from seedling.review.server import ReviewServer
from seedling.review.session import ReviewSession
from seedling.workspace import Workspace

START_SECONDS = 90
PAGE_MILLISECONDS = 30_000


@dataclass
class ReviewProcess:
    """`seedling review` of a workspace, which a test may stop, kill and start again at the same port."""

    workspace: Path
    reviewers: tuple[str, ...] = ("anna",)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the process and wait until it serves."""
        command = [str(Path(sys.executable).parent / "seedling"), "review", "--no-browser", "--port", str(self.port)]
        command += [part for name in self.reviewers for part in ("--reviewer", name)]
        log = self.log_path
        with log.open("w", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                [*command, "-w", str(self.workspace)], stdout=file, stderr=file, text=True, start_new_session=True
            )
        wait_for(lambda: " to review." in log.read_text(encoding="utf-8"), START_SECONDS, log.read_text)

    @property
    def log_path(self) -> Path:
        """What the command prints."""
        return self.workspace.parent / f"review-{self.port}.log"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the process at once, as `kill -9` does."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(timeout=30)

    def stop(self) -> None:
        """End the process as Ctrl-C does, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.kill()

    def url(self, reviewer: str = "anna", path: str = "/") -> str:
        """The page's address with the reviewer's token."""
        tokens = json.loads((Workspace(self.workspace).review_folder / "tokens.json").read_text(encoding="utf-8"))
        return f"http://127.0.0.1:{self.port}{path}?token={tokens[reviewer]}"

    def lines(self, reviewer: str = "anna") -> list[dict[str, Any]]:
        """The lines of the reviewer's log, the earliest first."""
        path = Workspace(self.workspace).reviews / f"{reviewer}.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []

    def answers(self, reviewer: str = "anna") -> list[dict[str, Any]]:
        """The answers of the reviewer's log."""
        return [line for line in self.lines(reviewer) if line["kind"] == "answer"]


@dataclass
class ReviewThread(ReviewProcess):
    """The same server on a thread of this process, which starts within a second."""

    server: ReviewServer | None = None

    def start(self) -> None:
        """Start the server."""
        self.server = ReviewServer(ReviewSession.of(self.workspace), self.reviewers, "127.0.0.1", self.port)
        self.server.start()

    def stop(self) -> None:
        """Stop the server."""
        if self.server is not None:
            self.server.stop()
            self.server = None


def serve(workspace: Path, reviewers: tuple[str, ...], port: int) -> None:
    """Serve the workspace's review in this process until it is killed."""
    server = ReviewServer(ReviewSession.of(workspace), reviewers, "127.0.0.1", port)
    server.start()
    server.wait()


@dataclass
class ReviewFork(ReviewProcess):
    """The same server in a process that a fork server starts, which has the modules: it serves within a second."""

    fork: Any = None

    def start(self) -> None:
        """Start the process and wait until it serves."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["seedling.review.server", "seedling.review.session", "uvicorn"])
        self.fork = context.Process(target=serve, args=(self.workspace, self.reviewers, self.port), daemon=True)
        self.fork.start()
        wait_for(self._serves, START_SECONDS, lambda: f"exit code {self.fork.exitcode}")

    def _serves(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def log_path(self) -> Path:
        """What the command prints."""
        return self.workspace.parent / f"review-{self.port}.log"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        os.kill(self.fork.pid, number)

    def kill(self) -> None:
        """End the process at once, as `kill -9` does."""
        self.fork.kill()
        self.fork.join(timeout=30)

    def stop(self) -> None:
        """End the process."""
        self.kill()


@contextmanager
def reviewing(
    workspace: Path, reviewers: tuple[str, ...] = ("anna",), kind: type[ReviewProcess] = ReviewThread
) -> Iterator[ReviewProcess]:
    """Serve the workspace's review until the block ends."""
    review = kind(workspace, reviewers)
    review.start()
    try:
        yield review
    finally:
        review.stop()


LAUNCH: dict[str, Any] = {"executable_path": shutil.which("chromium"), "args": ["--no-sandbox", "--disable-quic"]}


class ReviewPage:
    """A page of Chromium that is open at a review, and what went wrong in it."""

    def __init__(self, context: Any, url: str) -> None:
        self.problems: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(PAGE_MILLISECONDS)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.goto(url)
        self.wait_until_painted()

    def _dismiss(self, dialog: Any) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def wait_until_painted(self, other_than: str = "") -> str:
        """The id of the row on the screen, once it is another one than this."""
        self.page.wait_for_selector(f"body[data-painted]:not([data-painted='']):not([data-painted='{other_than}'])")
        return self.row

    def wait_until_saved(self) -> None:
        """Wait until the server has acknowledged all answers."""
        self.page.wait_for_selector("body[data-unsent='0']")

    @property
    def row(self) -> str:
        """The id of the row on the screen; of several rows, the first."""
        return str(self.page.locator("body").get_attribute("data-painted"))

    def press(self, *keys: str) -> list[str]:
        """Press keys, each of which shows another row. Returns the rows that were on the screen at each."""
        rows = []
        for key in keys:
            rows.append(self.row)
            self.page.keyboard.press(key)
            self.wait_until_painted(other_than=rows[-1])
        return rows

    def use_mode(self, mode: str) -> str:
        """Choose the mode in its menu; the row that it shows."""
        if self.page.locator("body").get_attribute("data-mode") != mode:
            self.page.select_option("#mode", mode)
            self.page.wait_for_selector(f"body[data-mode='{mode}']")
        return self.wait_until_painted()

    def text(self, selector: str) -> str:
        """The visible text of an element."""
        return str(self.page.inner_text(selector))


def browser_process(profile: Path) -> int:
    """The number of the process of the Chromium that this process has started with the profile."""
    (first, *_) = [
        process.pid
        for process in psutil.Process().children(recursive=True)
        if f"--user-data-dir={profile}" in process.cmdline() and "--type=" not in " ".join(process.cmdline())
    ]
    return first


def ask_in_order(workspace: Path) -> None:
    """Without random, known and repeated rows, and without refits: each row is asked once."""
    for share in ("random_share", "gold_share", "repeat_share"):
        set_value(workspace, ["review", share], 0.0)
    set_value(workspace, ["review", "refit_after"], 1000)


def kill_tree(pid: int) -> None:
    """End a process and its children at once."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in processes:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    psutil.wait_procs(processes, timeout=30)

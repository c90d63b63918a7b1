"""What was made from what: the only importer of dvc.

Running a stage means: unchanged → nothing; seen before → restored from DVC's run cache; else run in this process,
counted, gated (tasks/stages.py), and recorded in dvc.lock. A failed gate records nothing.
One `Repo` and one lock around each of its operations, never around the work: threads would lose entries of dvc.lock.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from dvc.exceptions import CheckoutError, DvcException
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.stage.cache import RunCacheNotFoundError

from tasks.errors import InputError, SeedlingError, WorkspaceBusy
from tasks.progress import Progress, silent
from tasks.stages import Stage, find, run_stage, summary

How = Literal["unchanged", "restored", "done"]
Watch = Callable[[str], AbstractContextManager[Progress]]  # stage name → where its progress goes


@dataclass(frozen=True)
class Outcome:
    """What became of a stage: how it came about, in how many seconds, and what it says of itself."""

    stage: str
    how: How
    seconds: float
    summary: dict[str, Any] = field(default_factory=dict)


class Ledger:
    """One workspace's dvc.yaml and dvc.lock."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        logging.getLogger("dvc").setLevel(logging.ERROR)
        self._repo = _open(workspace)
        self._lock = threading.Lock()
        self._warm = False
        self.watch: Watch = lambda _: nullcontext(silent)

    def track_data(self) -> bool:
        """`dvc add data` where data/ differs from data.dvc; where it is missing, brings it back from the cache.

        Gives whether anything was done. Raises InputError where there is neither data/ nor a stored copy.
        """
        data, pointer = self.workspace / "data", self.workspace / "data.dvc"
        with self._operation() as repo:
            if data.is_dir():
                if pointer.exists() and not self._load(repo, "data.dvc").changed_outs():
                    return False
                repo.add(["data"])
                return True
            if pointer.exists():
                try:
                    repo.checkout(["data.dvc"])
                except CheckoutError as error:
                    raise InputError(f"{data} is missing and DVC's cache has no copy: `dvc pull`, or put it back.") from error
                return True
        raise InputError(f"{data} does not exist: put labelled/<class>/ and unlabelled/ there, or use `seedling init`.")

    def run(self, name: str, *, force: bool = False) -> Outcome:
        """Brings the stage up to date. Raises GateFailed, InputError and the other errors of the stage."""
        stage, began = find(name), time.perf_counter()
        how: How = "done" if force else self._without_work(stage)
        with self.watch(name) as progress:
            if how == "done":
                self._warm_up()
                run_stage(stage, self.workspace, progress)
                with self._operation() as repo:
                    repo.commit(stage.name, force=True)
        return Outcome(name, how, time.perf_counter() - began, summary(stage, self.workspace))

    def _without_work(self, stage: Stage) -> How:
        with self._operation() as repo:
            if not self._load(repo, stage.name).changed():
                return "unchanged"
            try:
                # On a freshly loaded stage only: one whose dependencies were saved before takes stale outputs for its own.
                repo.stage_cache.restore(self._load(repo, stage.name))
            except (RunCacheNotFoundError, CheckoutError):
                return "done"
            repo.commit(stage.name, force=True)
            return "restored"

    @staticmethod
    def _load(repo: Repo, name: str) -> Any:
        repo._reset()  # noqa: SLF001  (DVC's own way of forgetting what it has read of dvc.lock)
        (stage,) = repo.stage.collect(name)
        return stage

    def save_experiment(self, name: str) -> str | None:
        """`dvc exp save`: the workspace as an experiment, so that runs can be compared without a commit on a branch."""
        with self._operation() as repo:
            saved: str | None = repo.experiments.save(name=name, force=True)
            return saved

    def is_clean(self) -> bool:
        """Whether `dvc status` has nothing to say."""
        with self._operation() as repo:
            repo._reset()  # noqa: SLF001
            return not repo.status()

    def _warm_up(self) -> None:
        """Imports Great Expectations (seconds) while the first stage works: every gate will need it."""
        if not self._warm:
            self._warm = True
            threading.Thread(target=importlib.import_module, args=("great_expectations",), daemon=True).start()

    @contextmanager
    def _operation(self) -> Iterator[Repo]:
        try:
            with self._lock, _inside(self.workspace), lock_repo(self._repo):
                yield self._repo
        except LockError as error:
            raise WorkspaceBusy(f"Another dvc command is at work in {self.workspace}: wait for it, then run again.") from error
        except DvcException as error:
            raise SeedlingError(f"DVC: {error}. `dvc status` and `dvc doctor` tell more.") from error


def _open(workspace: Path) -> Repo:
    if not (workspace / ".dvc").is_dir():
        raise InputError(
            f"{workspace} is no Seedling workspace (it has no .dvc): make one with `seedling init DIR --images PATH`, "
            "or name another with --workspace."
        )
    try:
        return Repo(str(workspace), _wait_for_lock=True)
    except DvcException as error:
        raise InputError(f"DVC cannot open {workspace}: {error}") from error


@contextmanager
def _inside(workspace: Path) -> Iterator[None]:
    """DVC resolves what it is told against the working directory."""
    before = Path.cwd()
    os.chdir(workspace)
    try:
        yield
    finally:
        os.chdir(before)


@cache
def open_ledger(workspace: Path) -> Ledger:
    """The workspace's ledger, one a process."""
    return Ledger(workspace)

"""What was made from what: the only importer of dvc.

Running a stage means: unchanged → nothing; seen before → restored from DVC's run cache; else run in this process,
counted, gated (tasks/stages.py), and recorded in dvc.lock. A failed gate records nothing.
One `Repo` and one lock around each of its operations, never around the work: threads would lose entries of dvc.lock.
"""

from __future__ import annotations

import io
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from dvc.api import DVCFileSystem
from dvc.exceptions import CheckoutError, ConfirmRemoveError, DvcException
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.rwlock import rwlock
from dvc.scm import CloneError, RevError
from dvc.stage.cache import RunCacheNotFoundError
from dvc.utils.serialize import dump_yaml, load_yaml

from tasks.errors import InputError, SeedlingError, WorkspaceBusy
from tasks.progress import Progress, silent
from tasks.stages import Stage, check_inputs, find, gate_changed, run_stage, stages
from tasks.summaries import summary

How = Literal["unchanged", "restored", "done"]
Watch = Callable[[str], AbstractContextManager[Progress]]  # stage name → where its progress goes


@dataclass(frozen=True)
class Outcome:
    """What became of a stage: how it came about, in how many seconds, and what it says of itself."""

    stage: str
    how: How
    seconds: float
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ticket:
    """A stage's hold on its folders, and the inputs that it began with."""

    busy: AbstractContextManager[None]
    inputs: list[Any]


class Ledger:
    """One workspace's dvc.yaml and dvc.lock."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        logging.getLogger("dvc").setLevel(logging.ERROR)
        self._repo = _open(workspace)
        self._lock = threading.Lock()
        self.watch: Watch = lambda _: nullcontext(silent)
        self.finished: Callable[[Outcome], None] = lambda _: None

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
                    raise InputError(
                        f"{data} is missing and DVC's cache has no copy: `dvc pull`, or put it back."
                    ) from error
                return True
        raise InputError(f"{data} does not exist: put labelled/<class>/ and unlabelled/ there, or use `seedling init`.")

    def run(self, name: str, *, force: bool = False) -> Outcome:
        """Brings the stage up to date. Raises GateFailed, InputError and the other errors of the stage."""
        stage, began = find(name), time.perf_counter()
        check_inputs(stage, self.workspace)
        with self.watch(name) as progress:
            with self._operation() as repo:
                loaded = self._load(repo, name)
                how: How = "done" if force else self._without_work(repo, loaded)
                if how != "done" and gate_changed(stage, self.workspace):
                    how, loaded = "done", self._load(repo, name)
                ticket = self._reserve(repo, stage, loaded) if how == "done" else None
            if ticket is not None:
                with self._recorded(stage, ticket):
                    run_stage(stage, self.workspace, progress)
        outcome = Outcome(name, how, time.perf_counter() - began, summary(stage, self.workspace))
        self.finished(outcome)
        return outcome

    def _without_work(self, repo: Repo, loaded: Any) -> How:
        if not loaded.changed():
            return "unchanged"
        # Before anything saved the stage's dependencies: one whose dependencies are saved takes stale outputs for its own.
        try:
            try:
                repo.stage_cache.restore(loaded)
            except ConfirmRemoveError:  # an output that was changed by hand goes, as it does in `dvc repro`
                self._load(repo, loaded.addressing).remove_outs(force=True)
                repo.stage_cache.restore(self._load(repo, loaded.addressing))
        except (RunCacheNotFoundError, CheckoutError):
            return "done"
        self._record(self._load(repo, loaded.addressing))
        return "restored"

    @staticmethod
    def _record(loaded: Any) -> None:
        """What `dvc commit --force` does for one stage."""
        loaded.save()
        loaded.commit()
        loaded.dump(update_pipeline=False)

    def _reserve(self, repo: Repo, stage: Stage, loaded: Any) -> Ticket:
        """While the stage works, DVC commands of other processes find its folders busy, as they do in `dvc repro`."""
        inputs, output = ([str(self.workspace / one) for one in group] for group in (stage.inputs, (stage.output,)))
        busy = rwlock(repo.tmp_dir, repo.fs, f"seedling {stage.name}", inputs, output, False)
        busy.__enter__()
        return Ticket(busy, self._inputs_of(loaded))

    @contextmanager
    def _recorded(self, stage: Stage, ticket: Ticket) -> Iterator[None]:
        """Records what the block made, unless it failed or its inputs changed meanwhile; gives the folders free."""
        try:
            yield
        except BaseException:
            with self._operation():
                ticket.busy.__exit__(None, None, None)
            raise
        with self._operation() as repo:
            ticket.busy.__exit__(None, None, None)
            loaded = self._load(repo, stage.name)
            if self._inputs_of(loaded) != ticket.inputs:  # else the new inputs stood beside the old ones' output
                raise SeedlingError(f"The inputs of stage '{stage.name}' changed while it worked: run it again.")
            self._record(loaded)

    @staticmethod
    def _inputs_of(loaded: Any) -> list[Any]:
        """What DVC takes for the stage's inputs just now: hashes of folders, values of params."""
        loaded.save_deps()
        return [(dep.def_path, dep.hash_info) for dep in loaded.deps]

    @staticmethod
    def _load(repo: Repo, name: str) -> Any:
        repo._reset()
        (stage,) = repo.stage.collect(name)
        return stage

    def save_experiment(self, name: str) -> str | None:
        """`dvc exp save`: the workspace as an experiment, so that runs can be compared without a commit on a branch."""
        with self._operation(locked=False) as repo:  # DVC opens the repository once more for this, and locks it itself
            saved: str | None = repo.experiments.save(name=name, force=True)
            return saved

    def states(self) -> dict[str, str]:
        """Stage → `changed` or `missing`, for those that `dvc status` has something to say about."""
        with self._operation() as repo:
            repo._reset()
            said = repo.status()
        found = {}
        for name, changes in said.items():
            outs = [state for one in changes if isinstance(one, dict) for state in one.get("changed outs", {}).values()]
            found[str(name).removeprefix("dvc.yaml:")] = "missing" if outs and set(outs) == {"deleted"} else "changed"
        return found

    def files_at(self, revision: str | None, paths: Sequence[str]) -> dict[str, bytes | None]:
        """The files' bytes at a git revision or DVC experiment, None where one is not there; None: the workspace's own.

        Raises InputError where there is no such revision.
        """
        if revision is None:
            here = {path: self.workspace / path for path in paths}
            return {path: file.read_bytes() if file.is_file() else None for path, file in here.items()}
        with self._operation():
            try:
                files = DVCFileSystem(str(self.workspace), rev=revision)
                return {path: files.read_bytes(path) if files.exists(path) else None for path in paths}
            except (RevError, CloneError) as error:
                raise InputError(
                    f"'{revision}' is no run, experiment or git revision: `dvc exp list` and `git log` show what there is."
                ) from error
            except FileNotFoundError:
                return dict.fromkeys(paths)

    def folder_at(self, revision: str | None, path: str, into: Path) -> Path | None:
        """The folder at a git revision or DVC experiment, fetched into `into`; None where it is not there, or no longer in the cache. None as
        revision: the workspace's own, as it lies.

        Raises InputError where there is no such revision.
        """
        if revision is None:
            return self.workspace / path if (self.workspace / path).is_dir() else None
        with self._operation():
            try:
                files = DVCFileSystem(str(self.workspace), rev=revision)
                if not files.isdir(path):
                    return None
                files.get(path, str(into / Path(path).name), recursive=True)
            except (RevError, CloneError) as error:
                raise InputError(
                    f"'{revision}' is no run, experiment or git revision: `dvc exp list` and `git log` show what there is."
                ) from error
            except FileNotFoundError:
                return None
        return into / Path(path).name

    def sort_lock(self) -> None:
        """Brings dvc.lock's entries into the line's order: which of two parallel stages ended first says nothing."""
        path = self.workspace / "dvc.lock"
        with self._operation():
            found = load_yaml(path)
            place = {name: number for number, name in enumerate(stages())}
            ordered = sorted(found["stages"], key=lambda name: (place.get(name, len(place)), name))
            if ordered != list(found["stages"]):
                dump_yaml(path, {**found, "stages": {name: found["stages"][name] for name in ordered}})

    @contextmanager
    def _operation(self, *, locked: bool = True) -> Iterator[Repo]:
        try:
            with (
                self._lock,
                _inside(self.workspace),
                redirect_stderr(io.StringIO()),  # DVC's own progress bars would tear the table
                lock_repo(self._repo) if locked else nullcontext(),
            ):
                yield self._repo
        except LockError as error:
            raise WorkspaceBusy(
                f"Another dvc command is at work in {self.workspace}: wait for it, then run again."
            ) from error
        except DvcException as error:
            said = str(error).rstrip(".")
            if "are missing from" in said:
                raise InputError(
                    f"{said}: put it back, a section even empty (`validate: {{}}`, `validate: []`), a key as null (`encoder: null`)."
                ) from error
            raise SeedlingError(f"DVC: {said}. `dvc status` and `dvc doctor` tell more.") from error


def _open(workspace: Path) -> Repo:
    if not (workspace / ".dvc").is_dir():
        raise InputError(
            f"{workspace} is no Seedling workspace (it has no .dvc): make one with `seedling init DIR --images PATH`, "
            "or name another with --workspace."
        )
    for name in ("dvc.yaml", "gates.yaml"):
        if not (workspace / name).is_file():
            raise InputError(f"{workspace / name} is missing: `git checkout -- {name}` brings it back.")
    try:
        return Repo(str(workspace), _wait_for_lock=True)
    except DvcException as error:
        raise InputError(f"DVC cannot open {workspace}: {error}. Is its .git still there?") from error


def create_repository(folder: Path) -> None:
    """`dvc init` and `dvc add data`. Raises InputError where DVC cannot."""
    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):  # DVC's advice on its own commands
            Repo.init(str(folder)).close()
            with Repo(str(folder)) as repo, _inside(folder):
                repo.add(["data"])
    except DvcException as error:
        raise InputError(f"DVC cannot make a repository of {folder}: {error}") from error


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

"""The ledger: runs stages and records their inputs and outputs with DVC.

To run a stage: if nothing changed, do nothing; if the run cache has the result, restore it; otherwise execute the stage
in this process, count its rows and check its gate (seedling/runner.py), and record it in dvc.lock. A stage whose gate
fails is not recorded. All threads share one `Repo`, and a lock surrounds each of its operations but not the execution
of a stage; without the lock, concurrent threads would lose entries of dvc.lock.
"""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from dvc.api import DVCFileSystem
from dvc.dvcfile import Lockfile
from dvc.exceptions import CheckoutError, ConfirmRemoveError
from dvc.repo import Repo, lock_repo
from dvc.rwlock import rwlock
from dvc.scm import CloneError, RevError
from dvc.stage.cache import RunCacheNotFoundError
from dvc.utils.serialize import dump_yaml, load_yaml

from seedling.config.params import load
from seedling.errors import InputError, SeedlingError
from seedling.pipeline import Stage, find_stage, stages
from seedling.progress import Progress, silent
from seedling.records.summaries import StageSummary, summary
from seedling.runner import check_inputs, gate_changed, run_stage
from seedling.versioning.cache_repair import recommit_whole_outputs, renew_links
from seedling.versioning.data_tracking import add_settled, pointer_was_pulled, state_ignored
from seedling.versioning.experiments import save_experiment
from seedling.versioning.pinned import PinnedData, PinnedParams, PinnedReviews
from seedling.versioning.repository import explained_errors, open_repository, replaced_lock, working_in
from seedling.versioning.snapshot import OPTIONAL_FILES, REQUIRED_FILES, Snapshot, copy_inputs, list_data
from seedling.versioning.tracked_files import drop_stale_locks
from seedling.workspace import (
    DATA,
    DATA_POINTER,
    DVC_LOCK,
    DVC_YAML,
    GATES_FILE,
    PARAMS_FILE,
    REVIEWS,
    TEST_EVALUATIONS,
    Workspace,
)

SNAPSHOT_FILES = (*REQUIRED_FILES, *OPTIONAL_FILES)
OutcomeKind = Literal["unchanged", "restored", "done"]
Watch = Callable[[str], AbstractContextManager[Progress]]  # stage name → context manager of its progress callback


@dataclass(frozen=True)
class Outcome:
    """The outcome of a stage: whether it was unchanged, restored or done, its seconds, and its summary."""

    stage: str
    how: OutcomeKind
    seconds: float
    summary: StageSummary = field(default_factory=StageSummary)


@dataclass(frozen=True)
class Ticket:
    """A stage's lock on its folders, and its inputs when it started."""

    lock: AbstractContextManager[None]
    inputs: list[Any]


@dataclass
class Execution:
    """The execution of a stage. output_changed: whether to record its output."""

    output_changed: bool = True


class Ledger:
    """Runs the stages of a workspace and records them in its dvc.lock."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        logging.getLogger("dvc").setLevel(logging.ERROR)
        self._repo = open_repository(workspace)
        self._lock = threading.Lock()
        self.watch: Watch = lambda _: nullcontext(silent)
        self.finished: Callable[[Outcome], None] = lambda _: None
        self.snapshot: Snapshot | None = None
        self._pointer: Any = None

    @contextmanager
    def snapshotted(self) -> Iterator[Snapshot]:
        """Take a snapshot of the workspace's inputs; stages in the block use it and are recorded with it."""
        load(self.workspace)  # fails before invalid inputs are copied, such as params.yaml with a secret
        drop_stale_locks(Path(self._repo.tmp_dir))
        with self._operation() as repo:
            renew_links(repo)
        listing = list_data(Workspace(self.workspace).data)
        self.track_data()
        with self._operation() as repo:
            (self._pointer,) = self._load(repo, DATA_POINTER).outs
            state_ignored(repo, self._pointer, self.workspace, listing)
            self.snapshot = copy_inputs(self.workspace, self._pointer.hash_info.value, listing)
        try:
            yield self.snapshot
        finally:
            self.snapshot.drop_data()
            self.snapshot = self._pointer = None

    def changed_during_run(self) -> list[str]:
        """List the inputs that differ from the snapshot: "params.yaml", "data/ (2 added, 1 changed)"."""
        if self.snapshot is None:
            return []
        changed = self.snapshot.changed_files()
        with self._operation(locked=False) as repo:
            status = repo.data_status([DATA], granular=True)
        counts = {
            kind: len([path for path in status["uncommitted"].get(name, []) if not str(path).endswith("/")])
            for kind, name in (
                ("added", "added"),
                ("renamed", "renamed"),
                ("changed", "modified"),
                ("removed", "deleted"),
            )
        }
        phrases = [f"{count} {kind}" for kind, count in counts.items() if count]
        if phrases:
            changed = [f"data/ ({', '.join(phrases)})", *changed]
        return ["data/" if name == DATA_POINTER else name for name in changed]

    def track_data(self) -> bool:
        """Run `dvc add data` if data/ differs from data.dvc; restore data/ from the cache if it is missing.

        Returns whether data/ was added or restored. Raises InputError if there is neither data/ nor a stored copy.
        """
        data, pointer = Workspace(self.workspace).data, Workspace(self.workspace).data_pointer
        with self._operation() as repo:
            if data.is_dir():
                loaded = self._load(repo, DATA_POINTER) if pointer.exists() else None
                if loaded is not None and not loaded.changed_outs():
                    return False
                if loaded is None or not pointer_was_pulled(self.workspace, loaded):
                    return add_settled(repo, self.workspace)
            if pointer.exists():
                try:
                    repo.checkout([DATA_POINTER], force=True)
                except CheckoutError as error:
                    state = "is older than data.dvc" if data.is_dir() else "is missing"
                    raise InputError(f"{data} {state} and DVC's cache has no copy: run `dvc pull`.") from error
                return True
        raise InputError(
            f"{data} does not exist: create it with labeled/<class>/ and unlabeled/, or use `seedling init`."
        )

    def run(self, name: str, *, force: bool = False, visit: bool = False) -> Outcome:
        """Bring the stage up to date. Raises GateFailed, InputError and the other errors of the stage.

        force: execute the stage even if nothing changed. visit: execute it because its web sources may have changed; if
        the rows are the same, nothing is recorded and the outcome is "unchanged".
        """
        if self.snapshot is None:
            with self.snapshotted():
                return self.run(name, force=force, visit=visit)
        stage, start_seconds = find_stage(name), time.perf_counter()
        check_inputs(stage, self.workspace)
        with self.watch(name) as progress:
            with self._operation() as repo:
                loaded = self._load(repo, name)
                how: OutcomeKind = "done" if force or visit else self._restore(repo, loaded)
                if how != "done" and gate_changed(stage, self.workspace, self.snapshot.folder):
                    how, loaded = "done", self._load(repo, name)
                compare = visit and not loaded.changed_outs()
                ticket = self._reserve(repo, stage, loaded) if how == "done" else None
            if ticket is not None and not self._execute(stage, ticket, progress, _same_rows if compare else None):
                how = "unchanged"
        outcome = Outcome(name, how, time.perf_counter() - start_seconds, summary(stage, self.workspace))
        if not (visit and how == "unchanged"):  # the caller brings the stage up to date next
            self.finished(outcome)
        return outcome

    def _execute(
        self, stage: Stage, ticket: Ticket, progress: Progress, compare: Callable[[Path, Path], bool] | None
    ) -> bool:
        """Execute the stage on the snapshot and record it; return whether its output changed.

        compare: returns whether the new output has the same rows as the old one, which then stays.
        """
        assert self.snapshot is not None  # noqa: S101  (`run` takes a snapshot)
        if DATA in stage.inputs:
            with self._operation():
                self._link_data(self.snapshot)
        try:
            with self._recorded(stage, ticket) as execution:
                execution.output_changed = run_stage(
                    stage, self.workspace, progress, inputs=self.snapshot.folder, same_rows=compare
                )
        except InputError as error:
            error.args = (self.snapshot.with_workspace_paths(str(error)), *error.args[1:])
            raise
        return execution.output_changed

    def _link_data(self, snapshot: Snapshot) -> None:
        tree = self._pointer.get_obj()
        cache_path = self._pointer.cache.oid_to_path
        snapshot.link_data(("/".join(key), Path(cache_path(digest.value))) for key, _, digest in tree or ())

    def _restore(self, repo: Repo, loaded: Any) -> OutcomeKind:
        """Bring the stage up to date without executing it; return "done" if it has to be executed."""
        if not loaded.changed() or recommit_whole_outputs(loaded):
            return "unchanged"
        # Restore before the stage's dependencies are saved: once they are, DVC accepts stale outputs as current.
        try:
            try:
                repo.stage_cache.restore(loaded)
            except ConfirmRemoveError:  # a manually changed output is removed, as in `dvc repro`
                self._load(repo, loaded.addressing).remove_outs(force=True)
                repo.stage_cache.restore(self._load(repo, loaded.addressing))
        except (RunCacheNotFoundError, CheckoutError):
            return "done"
        self._record(self._load(repo, loaded.addressing))
        return "restored"

    @staticmethod
    def _record(loaded: Any) -> None:
        """Record one stage as `dvc commit --force` does."""
        loaded.save()
        loaded.commit()
        with replaced_lock(Path(loaded.repo.root_dir)) as draft:
            Lockfile(loaded.repo, str(draft)).dump_stages([loaded])

    def _reserve(self, repo: Repo, stage: Stage, loaded: Any) -> Ticket:
        """Lock the stage's folders against DVC commands of other processes while it runs, as `dvc repro` does."""
        input_paths, output_paths = (
            [str(self.workspace / folder) for folder in group] for group in (stage.inputs, (stage.output,))
        )
        lock = rwlock(repo.tmp_dir, repo.fs, f"seedling {stage.name}", input_paths, output_paths, False)
        lock.__enter__()
        return Ticket(lock, self._current_inputs(loaded))

    @contextmanager
    def _recorded(self, stage: Stage, ticket: Ticket) -> Iterator[Execution]:
        """Release the stage's lock after the block, and record the stage unless it failed or its inputs changed."""
        execution = Execution()
        try:
            yield execution
        except BaseException:
            with self._operation():
                ticket.lock.__exit__(None, None, None)
            raise
        with self._operation() as repo:
            ticket.lock.__exit__(None, None, None)
            if not execution.output_changed:
                return
            loaded = self._load(repo, stage.name)
            if self._current_inputs(loaded) != ticket.inputs:  # dvc.lock would pair new inputs with an old output
                raise SeedlingError(
                    f"Another process changed the inputs of stage '{stage.name}' while the stage ran: run again."
                )
            self._record(loaded)

    @staticmethod
    def _current_inputs(loaded: Any) -> list[Any]:
        """Return the current inputs of the stage as DVC records them: hashes of folders, values of params."""
        loaded.save_deps()
        return [(dependency.def_path, dependency.hash_info) for dependency in loaded.deps]

    def _load(self, repo: Repo, name: str) -> Any:
        repo._reset()
        (stage,) = repo.stage.collect(name)
        return stage if self.snapshot is None or name == DATA_POINTER else self._pinned(stage)

    def _pinned(self, stage: Any) -> Any:
        """Make the stage read the dependencies that a user may change during a run from the snapshot."""
        assert self.snapshot is not None  # noqa: S101  (`_load` checks this)
        if DVC_YAML in self.snapshot.changed_files():
            raise SeedlingError(
                f"{Workspace(self.workspace).dvc_file} changed during the run, so its stages cannot be recorded: "
                "run again."
            )
        for position, dependency in enumerate(stage.deps):
            if dependency.def_path == DATA:
                stage.deps[position] = PinnedData(dependency, self._pointer)
            elif dependency.def_path == REVIEWS:
                stage.deps[position] = PinnedReviews(dependency, Workspace(self.snapshot.folder).reviews)
            elif dependency.def_path in {PARAMS_FILE, GATES_FILE}:
                stage.deps[position] = PinnedParams(dependency, self.snapshot.folder / dependency.def_path)
        return stage

    def save_experiment(self, name: str) -> str | None:
        """Save the run as a DVC experiment, so that runs can be compared without a commit on a branch.

        The experiment contains the snapshot that the stages used, without later changes in the workspace.
        """
        assert self.snapshot is not None  # noqa: S101  (a run ends before its snapshot is dropped)
        files = {name: self.snapshot.folder / name for name in SNAPSHOT_FILES}
        for path in (DVC_LOCK, TEST_EVALUATIONS):
            files[path] = self.workspace / path
        for file in Workspace(self.snapshot.folder).reviews.iterdir():
            files[f"{REVIEWS}/{file.name}"] = file
        return save_experiment(self.workspace, name, {name: file for name, file in files.items() if file.is_file()})

    def states(self) -> dict[str, str]:
        """Return stage → `changed` or `missing`, for the stages that `dvc status` lists."""
        with self._operation() as repo:
            status = repo.status()
        states = {}
        for name, changes in status.items():
            output_states = {
                state
                for change in changes
                if isinstance(change, dict)
                for state in change.get("changed outs", {}).values()
            }
            is_missing = output_states == {"deleted"}
            states[str(name).removeprefix("dvc.yaml:")] = "missing" if is_missing else "changed"
        return states

    def files_at(self, revision: str | None, paths: Sequence[str]) -> dict[str, bytes | None]:
        """Return path → bytes at a git revision or DVC experiment; None for a missing file.

        revision: None reads the workspace's own files. Raises InputError if the revision does not exist.
        """
        if revision is None:
            files = {path: self.workspace / path for path in paths}
            return {path: file.read_bytes() if file.is_file() else None for path, file in files.items()}
        with self._operation():
            try:
                file_system = DVCFileSystem(str(self.workspace), rev=revision)
                return {path: file_system.read_bytes(path) if file_system.exists(path) else None for path in paths}
            except (RevError, CloneError) as error:
                raise _unknown_revision(revision) from error
            except FileNotFoundError:
                return dict.fromkeys(paths)

    def folder_at(self, revision: str | None, path: str, into: Path) -> Path | None:
        """Copy a folder at a git revision or DVC experiment below `into` and return its path.

        Returns None if the folder does not exist or is no longer in the cache. revision: None returns the workspace's
        own folder. Raises InputError if the revision does not exist.
        """
        if revision is None:
            return self.workspace / path if (self.workspace / path).is_dir() else None
        with self._operation():
            try:
                file_system = DVCFileSystem(str(self.workspace), rev=revision)
                if not file_system.isdir(path):
                    return None
                file_system.get(path, str(into / Path(path).name), recursive=True)
            except (RevError, CloneError) as error:
                raise _unknown_revision(revision) from error
            except FileNotFoundError:
                return None
        return into / Path(path).name

    def sort_lock(self) -> None:
        """Sort dvc.lock in pipeline order, so that it does not depend on which parallel stage ends first."""
        path = Workspace(self.workspace).dvc_lock
        with self._operation():
            lock = load_yaml(path)
            stage_to_index = {name: index for index, name in enumerate(stages())}
            ordered = sorted(lock["stages"], key=lambda name: (stage_to_index.get(name, len(stage_to_index)), name))
            if ordered != list(lock["stages"]):
                with replaced_lock(self.workspace) as draft:
                    dump_yaml(draft, {**lock, "stages": {name: lock["stages"][name] for name in ordered}})

    @contextmanager
    def _operation(self, *, locked: bool = True) -> Iterator[Repo]:
        with (
            explained_errors(self.workspace),
            self._lock,
            working_in(self.workspace),
            redirect_stderr(io.StringIO()),  # DVC's progress bars would corrupt the live table
            lock_repo(self._repo) if locked else nullcontext(),
        ):
            yield self._repo


def _unknown_revision(revision: str) -> InputError:
    return InputError(
        f"'{revision}' is not a run, an experiment or a git revision: `dvc exp list` and `git log` list them."
    )


def _same_rows(visited: Path, output: Path) -> bool:
    from seedling.scrape.visits import same_rows  # imports the crawler, which only visits need

    return same_rows(visited, output)


@cache
def open_ledger(workspace: Path) -> Ledger:
    """Return the workspace's ledger, one per process."""
    return Ledger(workspace)

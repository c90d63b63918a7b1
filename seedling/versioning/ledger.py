"""The ledger: runs stages and records their inputs and outputs with DVC.

To run a stage: if nothing changed, do nothing; if the run cache has the result, restore it; otherwise execute the stage
in this process, count its rows and check its gate (seedling/runner.py), and record it in dvc.lock. A stage whose gate
fails is not recorded. All threads share one `Repo`, and a lock surrounds each of its operations but not the execution
of a stage; without the lock, concurrent threads would lose entries of dvc.lock.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from dvc.api import DVCFileSystem
from dvc.dependency.base import Dependency
from dvc.dependency.param import ParamsDependency, read_param_file
from dvc.dvcfile import Lockfile
from dvc.exceptions import CheckoutError, ConfirmRemoveError, DvcException
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.rwlock import rwlock
from dvc.scm import CloneError, RevError
from dvc.stage.cache import RunCacheNotFoundError
from dvc.utils.serialize import dump_yaml, load_yaml
from dvc_data.hashfile.hash import file_md5

from seedling.config.params import load
from seedling.errors import InputError, SeedlingError, WorkspaceBusy
from seedling.faults import explain
from seedling.pipeline import Stage, find_stage, stages
from seedling.progress import Progress, silent
from seedling.records.summaries import summary
from seedling.runner import check_inputs, gate_changed, run_stage
from seedling.terminal.notices import state_once
from seedling.versioning.cache_repair import recommit_whole_outputs, renew_links
from seedling.versioning.experiments import save_experiment
from seedling.versioning.snapshot import OPTIONAL_FILES, REQUIRED_FILES, Listing, Snapshot, copy_inputs, list_data
from seedling.versioning.tracked_files import check_tracked_files, drop_stale_locks, explain_dvc
from seedling.versioning.yaml_limits import limit_yaml
from seedling.workspace import (
    DATA,
    DATA_POINTER,
    DVC_LOCK,
    DVC_YAML,
    GATES_FILE,
    PARAMS_FILE,
    TEST_EVALUATIONS,
    Workspace,
)

SETTLE_ATTEMPTS = 5
SETTLE_SECONDS = 1.0
SNAPSHOT_FILES = (*REQUIRED_FILES, *OPTIONAL_FILES)
OutcomeKind = Literal["unchanged", "restored", "done"]
Watch = Callable[[str], AbstractContextManager[Progress]]  # stage name → context manager of its progress callback


@dataclass(frozen=True)
class Outcome:
    """The outcome of a stage: whether it was unchanged, restored or done, its seconds, and its summary."""

    stage: str
    how: OutcomeKind
    seconds: float
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ticket:
    """A stage's lock on its folders, and its inputs when it started."""

    lock: AbstractContextManager[None]
    inputs: list[Any]


@dataclass
class Execution:
    """The execution of a stage. output_changed: whether to record its output."""

    output_changed: bool = True


class PinnedData(Dependency):  # type: ignore[misc]  # DVC has no type annotations
    """data/ as in the run's snapshot, regardless of later changes in the workspace."""

    def __init__(self, dependency: Dependency, pointer: Any) -> None:
        """pointer: the output of data.dvc at the start of the run."""
        super().__init__(dependency.stage, dependency.fs_path)
        self.meta, self.hash_info, self._pointer = dependency.meta, dependency.hash_info, pointer

    @property
    def exists(self) -> bool:
        """Always true, since the snapshot can be restored from DVC's cache."""
        return True

    def get_hash(self) -> Any:
        """Return the snapshot's digest."""
        return self._pointer.hash_info

    def save(self) -> None:
        """Record the snapshot's digest as the digest of the data that the stage read."""
        self.meta, self.hash_info = self._pointer.meta, self._pointer.hash_info


class PinnedParams(ParamsDependency):  # type: ignore[misc]  # DVC has no type annotations
    """A params file as in the run's snapshot, regardless of later changes in the workspace."""

    def __init__(self, dependency: ParamsDependency, copy: Path) -> None:
        """copy: the copy of the file in the snapshot."""
        super().__init__(dependency.stage, dependency.fs_path, dependency.params)
        self.hash_info, self._copy = dependency.hash_info, copy

    def read_params(self, flatten: bool = True, **_: Any) -> dict[str, Any]:
        """Read the values of the dependency's keys from the copy in the snapshot."""
        values: dict[str, Any] = read_param_file(self.repo.fs, str(self._copy), list(self.params) or None, flatten)
        return values

    @property
    def exists(self) -> bool:
        """Always true, since the snapshot has a copy."""
        return True

    def isfile(self) -> bool:
        """Always true, since the snapshot's copy is a file."""
        return True


class Ledger:
    """Runs the stages of a workspace and records them in its dvc.lock."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        logging.getLogger("dvc").setLevel(logging.ERROR)
        self._repo = _open(workspace)
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
            self._state_ignored(repo, listing)
            self.snapshot = copy_inputs(self.workspace, self._pointer.hash_info.value, listing)
        try:
            yield self.snapshot
        finally:
            self.snapshot.drop_data()
            self.snapshot = self._pointer = None

    def _state_ignored(self, repo: Repo, listing: Listing) -> None:
        """Warn if the workspace's .dvcignore excludes files of data/, since runs do not use them."""
        if (self._pointer.meta.nfiles or 0) >= len(listing.files):
            return
        data = Workspace(self.workspace).data
        ignored = [name for name in sorted(listing.files) if repo.dvcignore.is_ignored_file(str(data / name))]
        if ignored:
            state_once(
                f"{len(ignored):,} files of data/ are hidden from DVC by {Workspace(self.workspace).dvc_ignore}, such "
                f"as {ignored[0]}, and runs do not use them: remove the pattern, or move the files out of data/."
            )

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
                if loaded is None or not self._pointer_was_pulled(loaded):
                    return self._add_settled(repo)
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

    def _pointer_was_pulled(self, loaded: Any) -> bool:
        """Whether data.dvc changed since the last run, for example by `git pull`, while data/ did not.

        Adding data/ would then undo the pulled change.
        """
        last_pointer = Workspace(Workspace(self.workspace).snapshot).data_pointer
        if (
            not last_pointer.is_file()
            or last_pointer.read_bytes() == Workspace(self.workspace).data_pointer.read_bytes()
        ):
            return False
        (entry,) = load_yaml(str(last_pointer))["outs"]
        (output,) = loaded.outs
        return bool(output.get_hash().value == entry["md5"])

    def _add_settled(self, repo: Repo) -> bool:
        """Run `dvc add data`, and repeat it while its files change; return whether data/ was added.

        DVC hashes a file and then stores it, so a file that grows in between is stored under the wrong hash. If data/
        keeps changing after SETTLE_ATTEMPTS, the previously tracked version stays, and the next run adds the changes.
        """
        data, pointer = Workspace(self.workspace).data, Workspace(self.workspace).data_pointer
        tracked_before = pointer.read_bytes() if pointer.exists() else None
        for _ in range(SETTLE_ATTEMPTS):
            before = list_data(data)
            repo.add([DATA])
            changed = list_data(data).changed_since(before)
            if not changed:
                return True
            self._drop_torn_objects(repo, changed)
            time.sleep(SETTLE_SECONDS)
        if tracked_before is None:
            raise InputError(f"{data / changed[0]} is still being written: wait until it is complete, then run again.")
        pointer.write_bytes(tracked_before)
        return False

    def _drop_torn_objects(self, repo: Repo, changed: Sequence[str]) -> None:
        """Remove the cache objects of these files of data/ whose content does not match their hash."""
        (output,) = self._load(repo, DATA_POINTER).outs
        digests = {"/".join(key): digest.value for key, _, digest in output.get_obj() or ()}
        for name in changed:
            if name in digests:
                cached = Path(output.cache.oid_to_path(digests[name]))
                if cached.is_file() and file_md5(str(cached), output.cache.fs) != digests[name]:
                    cached.unlink()

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
        with _replaced_lock(Path(loaded.repo.root_dir)) as draft:
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
                with _replaced_lock(self.workspace) as draft:
                    dump_yaml(draft, {**lock, "stages": {name: lock["stages"][name] for name in ordered}})

    @contextmanager
    def _operation(self, *, locked: bool = True) -> Iterator[Repo]:
        try:
            with (
                self._lock,
                _inside(self.workspace),
                redirect_stderr(io.StringIO()),  # DVC's progress bars would corrupt the live table
                lock_repo(self._repo) if locked else nullcontext(),
            ):
                yield self._repo
        except LockError as error:
            raise WorkspaceBusy(
                f"Another dvc command is running in {self.workspace}: wait for it, then run again."
            ) from error
        except DvcException as error:
            message = str(error).rstrip(".")
            if "are missing from" in message:
                raise InputError(
                    f"{message}: restore it; a section may be empty (`validate: {{}}`, `validate: []`), a key may be "
                    "null (`encoder: null`)."
                ) from error
            seedling_error = explain(error) or explain_dvc(message, self.workspace)
            if seedling_error is not None:
                raise seedling_error from error
            raise SeedlingError(f"DVC: {message}. Run `dvc status` and `dvc doctor` for details.") from error


@contextmanager
def _replaced_lock(workspace: Path) -> Iterator[Path]:
    """Yield a copy of dvc.lock to change, then rename it: DVC writes in place, and a kill would leave half a file."""
    lock, draft = Workspace(workspace).dvc_lock, Workspace(workspace).dvc_lock_draft
    draft.unlink(missing_ok=True)
    if lock.is_file():
        shutil.copyfile(lock, draft)
    yield draft
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(lock)


def _unknown_revision(revision: str) -> InputError:
    return InputError(
        f"'{revision}' is not a run, an experiment or a git revision: `dvc exp list` and `git log` list them."
    )


def _same_rows(visited: Path, output: Path) -> bool:
    from seedling.scrape.visits import same_rows  # imports the crawler, which only visits need

    return same_rows(visited, output)


def _open(workspace: Path) -> Repo:
    if not Workspace(workspace).dvc_folder.is_dir():
        raise InputError(
            f"{workspace} is not a Seedling workspace (it has no .dvc): create one with "
            "`seedling init DIR --images PATH`, or name another with --workspace."
        )
    check_tracked_files(workspace)
    limit_yaml()
    try:
        repo = Repo(str(workspace), _wait_for_lock=True)
    except DvcException as error:
        raise InputError(f"DVC cannot open {workspace}: {error}. Is its .git still there?") from error
    _check_cache_path(repo)
    return repo


def _check_cache_path(repo: Repo) -> None:
    """Raise InputError if the cache's path has braces, since every DVC command interprets them as a placeholder."""
    path = str(repo.cache.local.path)
    if "{" in path or "}" in path:
        raise InputError(
            f"DVC cannot use a cache whose path has braces, {path}: rename the folder, or set another one with "
            "`dvc cache dir --global`."
        )


def create_repository(folder: Path) -> None:
    """Run `dvc init` and `dvc add data`. Raises InputError if DVC fails."""
    logging.getLogger("dvc").setLevel(logging.ERROR)
    limit_yaml()
    try:
        with redirect_stdout(io.StringIO()):  # hides DVC's hints
            Repo.init(str(folder)).close()
            with Repo(str(folder)) as repo, _inside(folder):
                _check_cache_path(repo)
                repo.add([DATA])
    except DvcException as error:
        raise InputError(f"DVC cannot create a repository in {folder}: {error}") from error


def renew_workspace_links(folder: Path) -> None:
    """Renew the links of a workspace that was moved, see `renew_links`. Raises InputError if DVC cannot open it."""
    try:
        with Repo(str(folder)) as repo:
            renew_links(repo)
    except DvcException as error:
        raise InputError(f"DVC cannot open {folder}: {error}") from error


@contextmanager
def _inside(workspace: Path) -> Iterator[None]:
    """Change the working directory to the workspace, since DVC resolves relative paths against it."""
    previous_folder = Path.cwd()
    os.chdir(workspace)
    try:
        yield
    finally:
        os.chdir(previous_folder)


@cache
def open_ledger(workspace: Path) -> Ledger:
    """Return the workspace's ledger, one per process."""
    return Ledger(workspace)

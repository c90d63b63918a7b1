"""What was made from what: the only importer of dvc.

Running a stage means: unchanged → nothing; seen before → restored from DVC's run cache; else run in this process,
counted, gated (seedling/runner.py), and recorded in dvc.lock. A failed gate records nothing.
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
from dvc.dependency.base import Dependency
from dvc.dependency.param import ParamsDependency, read_param_file
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
from seedling.records.test_evaluations import LOG as TEST_EVALUATIONS
from seedling.runner import check_inputs, gate_changed, run_stage
from seedling.terminal.notices import state_once
from seedling.versioning.cache_repair import recommit_whole_outputs, renew_links
from seedling.versioning.experiments import save_experiment
from seedling.versioning.snapshot import FOLDER as SNAPSHOT_FOLDER
from seedling.versioning.snapshot import OPTIONAL_FILES, REQUIRED_FILES, Listing, Snapshot, copy_inputs, list_data
from seedling.versioning.tracked_files import check_tracked_files, drop_stale_locks, explain_dvc
from seedling.versioning.yaml_limits import limit_yaml

limit_yaml()

SETTLE_ATTEMPTS = 5
SETTLE_SECONDS = 1.0
SNAPSHOT_FILES = (*REQUIRED_FILES, *OPTIONAL_FILES)
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


@dataclass
class Record:
    """wanted: whether what a stage made is to be recorded."""

    wanted: bool = True


class PinnedData(Dependency):  # type: ignore[misc]  # DVC comes without types
    """data/ as the run's snapshot has it, whatever lies in the workspace by now."""

    def __init__(self, dependency: Dependency, pointer: Any) -> None:
        """pointer: data.dvc's output, as it was when the run began."""
        super().__init__(dependency.stage, dependency.fs_path)
        self.meta, self.hash_info, self._pointer = dependency.meta, dependency.hash_info, pointer

    @property
    def exists(self) -> bool:
        """The snapshot can always be brought back from DVC's cache."""
        return True

    def get_hash(self) -> Any:
        """The snapshot's digest."""
        return self._pointer.hash_info

    def save(self) -> None:
        """Takes the snapshot's digest for what the stage read."""
        self.meta, self.hash_info = self._pointer.meta, self._pointer.hash_info


class PinnedParams(ParamsDependency):  # type: ignore[misc]  # DVC comes without types
    """A file of params as the run's snapshot has it, whatever stands in the workspace by now."""

    def __init__(self, dependency: ParamsDependency, copy: Path) -> None:
        """copy: the snapshot's copy of the file."""
        super().__init__(dependency.stage, dependency.fs_path, dependency.params)
        self.hash_info, self._copy = dependency.hash_info, copy

    def read_params(self, flatten: bool = True, **_: Any) -> dict[str, Any]:
        """The values of the dependency's keys in the snapshot's copy."""
        values: dict[str, Any] = read_param_file(self.repo.fs, str(self._copy), list(self.params) or None, flatten)
        return values

    @property
    def exists(self) -> bool:
        """The snapshot was taken of it."""
        return True

    def isfile(self) -> bool:
        """It is one in the snapshot."""
        return True


class Ledger:
    """One workspace's dvc.yaml and dvc.lock."""

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
        """Until the block ends, stages work on the workspace's inputs as they are now, and are recorded with these."""
        load(self.workspace)  # what may not be read is not copied either, such as a secret in params.yaml
        drop_stale_locks(Path(self._repo.tmp_dir))
        with self._operation() as repo:
            renew_links(repo)
        listing = list_data(self.workspace / "data")
        self.track_data()
        with self._operation() as repo:
            (self._pointer,) = self._load(repo, "data.dvc").outs
            self._state_ignored(repo, listing)
            self.snapshot = copy_inputs(self.workspace, self._pointer.hash_info.value, listing)
        try:
            yield self.snapshot
        finally:
            self.snapshot.drop_data()
            self.snapshot = self._pointer = None

    def _state_ignored(self, repo: Repo, listing: Listing) -> None:
        """States how many files of data/ a .dvcignore of the workspace hides, which then belong to no run."""
        if (self._pointer.meta.nfiles or 0) >= len(listing.files):
            return
        data = self.workspace / "data"
        hidden = [name for name in sorted(listing.files) if repo.dvcignore.is_ignored_file(str(data / name))]
        if hidden:
            state_once(
                f"{len(hidden):,} files of data/ are hidden from DVC by {self.workspace / '.dvcignore'}, {hidden[0]} the first, and belong to "
                "no run: take the pattern out, or move the files out of data/."
            )

    def changed_during_run(self) -> list[str]:
        """What differs from the snapshot by now, a phrase each: "params.yaml", "data/ (2 files added, 1 changed)"."""
        if self.snapshot is None:
            return []
        changed = self.snapshot.changed_files()
        with self._operation(locked=False) as repo:
            status = repo.data_status(["data"], granular=True)
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
        return ["data/" if name == "data.dvc" else name for name in changed]

    def track_data(self) -> bool:
        """`dvc add data` where data/ differs from data.dvc; where it is missing, brings it back from the cache.

        Gives whether anything was done. Raises InputError where there is neither data/ nor a stored copy.
        """
        data, pointer = self.workspace / "data", self.workspace / "data.dvc"
        with self._operation() as repo:
            if data.is_dir():
                loaded = self._load(repo, "data.dvc") if pointer.exists() else None
                if loaded is not None and not loaded.changed_outs():
                    return False
                if loaded is None or not self._pointer_was_pulled(loaded):
                    return self._add_settled(repo)
            if pointer.exists():
                try:
                    repo.checkout(["data.dvc"], force=True)
                except CheckoutError as error:
                    state = "is older than data.dvc" if data.is_dir() else "is missing"
                    raise InputError(f"{data} {state} and DVC's cache has no copy: `dvc pull`.") from error
                return True
        raise InputError(f"{data} does not exist: put labeled/<class>/ and unlabeled/ there, or use `seedling init`.")

    def _pointer_was_pulled(self, loaded: Any) -> bool:
        """Whether data.dvc changed since the last run, as by `git pull`, while data/ is still what that run read.

        To add data/ would then undo what was pulled.
        """
        last = self.workspace / SNAPSHOT_FOLDER / "data.dvc"
        if not last.is_file() or last.read_bytes() == (self.workspace / "data.dvc").read_bytes():
            return False
        (entry,) = load_yaml(str(last))["outs"]
        (output,) = loaded.outs
        return bool(output.get_hash().value == entry["md5"])

    def _add_settled(self, repo: Repo) -> bool:
        """`dvc add data`, again while files of it change meanwhile; gives whether it was added.

        DVC hashes a file and then stores it: one that grows in between would lie in the cache under the wrong hash. Where
        data/ does not come to rest, it stays as it was last tracked, and what is new belongs to the next run.
        """
        data, pointer = self.workspace / "data", self.workspace / "data.dvc"
        tracked_before = pointer.read_bytes() if pointer.exists() else None
        for _ in range(SETTLE_ATTEMPTS):
            before = list_data(data)
            repo.add(["data"])
            changed = list_data(data).changed_since(before)
            if not changed:
                return True
            self._drop_torn_objects(repo, changed)
            time.sleep(SETTLE_SECONDS)
        if tracked_before is None:
            raise InputError(f"{data / changed[0]} is still being written: wait until it is whole, then run again.")
        pointer.write_bytes(tracked_before)
        return False

    def _drop_torn_objects(self, repo: Repo, changed: Sequence[str]) -> None:
        """Removes from the cache what was stored of these files of data/ and does not have the content of its hash."""
        (output,) = self._load(repo, "data.dvc").outs
        digests = {"/".join(key): digest.value for key, _, digest in output.get_obj() or ()}
        for name in changed:
            if name in digests:
                stored = Path(output.cache.oid_to_path(digests[name]))
                if stored.is_file() and file_md5(str(stored), output.cache.fs) != digests[name]:
                    stored.unlink()

    def run(self, name: str, *, force: bool = False, visit: bool = False) -> Outcome:
        """Brings the stage up to date. Raises GateFailed, InputError and the other errors of the stage.

        visit: the stage works even if nothing changed here, since its sources on the web may have; where it makes the same
        rows again, nothing is recorded and the outcome is "unchanged".
        """
        if self.snapshot is None:
            with self.snapshotted():
                return self.run(name, force=force, visit=visit)
        stage, began = find_stage(name), time.perf_counter()
        check_inputs(stage, self.workspace)
        with self.watch(name) as progress:
            with self._operation() as repo:
                loaded = self._load(repo, name)
                how: How = "done" if force or visit else self._without_work(repo, loaded)
                if how != "done" and gate_changed(stage, self.workspace, self.snapshot.folder):
                    how, loaded = "done", self._load(repo, name)
                compare = visit and not loaded.changed_outs()
                ticket = self._reserve(repo, stage, loaded) if how == "done" else None
            if ticket is not None and not self._work(stage, ticket, progress, _same_rows if compare else None):
                how = "unchanged"
        outcome = Outcome(name, how, time.perf_counter() - began, summary(stage, self.workspace))
        if not (visit and how == "unchanged"):  # whoever asked for the visit brings the stage up to date next
            self.finished(outcome)
        return outcome

    def _work(
        self, stage: Stage, ticket: Ticket, progress: Progress, compare: Callable[[Path, Path], bool] | None
    ) -> bool:
        """Runs the stage on the snapshot and records it; gives whether its output changed.

        compare: whether the new output has the rows of the old one, which then stays.
        """
        assert self.snapshot is not None  # noqa: S101  (run takes one)
        if "data" in stage.inputs:
            with self._operation():
                self._link_data(self.snapshot)
        try:
            with self._recorded(stage, ticket) as record:
                record.wanted = run_stage(
                    stage, self.workspace, progress, inputs=self.snapshot.folder, same_rows=compare
                )
        except InputError as error:
            error.args = (self.snapshot.as_seen_by_user(str(error)), *error.args[1:])
            raise
        return record.wanted

    def _link_data(self, snapshot: Snapshot) -> None:
        tree = self._pointer.get_obj()
        cached = self._pointer.cache.oid_to_path
        snapshot.link_data(("/".join(key), Path(cached(digest.value))) for key, _, digest in tree or ())

    def _without_work(self, repo: Repo, loaded: Any) -> How:
        if not loaded.changed() or recommit_whole_outputs(loaded):
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
        inputs, output = (
            [str(self.workspace / folder) for folder in group] for group in (stage.inputs, (stage.output,))
        )
        busy = rwlock(repo.tmp_dir, repo.fs, f"seedling {stage.name}", inputs, output, False)
        busy.__enter__()
        return Ticket(busy, self._inputs_of(loaded))

    @contextmanager
    def _recorded(self, stage: Stage, ticket: Ticket) -> Iterator[Record]:
        """Records what the block made, unless it failed or its inputs changed meanwhile; gives the folders free."""
        record = Record()
        try:
            yield record
        except BaseException:
            with self._operation():
                ticket.busy.__exit__(None, None, None)
            raise
        with self._operation() as repo:
            ticket.busy.__exit__(None, None, None)
            if not record.wanted:
                return
            loaded = self._load(repo, stage.name)
            if self._inputs_of(loaded) != ticket.inputs:  # else the new inputs stood beside the old ones' output
                raise SeedlingError(
                    f"Folders that stage '{stage.name}' read changed while it worked, and not by this run: run again."
                )
            self._record(loaded)

    @staticmethod
    def _inputs_of(loaded: Any) -> list[Any]:
        """What DVC takes for the stage's inputs just now: hashes of folders, values of params."""
        loaded.save_deps()
        return [(dep.def_path, dep.hash_info) for dep in loaded.deps]

    def _load(self, repo: Repo, name: str) -> Any:
        repo._reset()
        (stage,) = repo.stage.collect(name)
        return stage if self.snapshot is None or name == "data.dvc" else self._pinned(stage)

    def _pinned(self, stage: Any) -> Any:
        """The stage with the dependencies that a person may change meanwhile read from the snapshot."""
        assert self.snapshot is not None  # noqa: S101  (_load looked)
        if "dvc.yaml" in self.snapshot.changed_files():
            raise SeedlingError(
                f"{self.workspace / 'dvc.yaml'} changed during the run, so its stages can no longer be recorded: run again."
            )
        for position, dependency in enumerate(stage.deps):
            if dependency.def_path == "data":
                stage.deps[position] = PinnedData(dependency, self._pointer)
            elif dependency.def_path in {"params.yaml", "gates.yaml"}:
                stage.deps[position] = PinnedParams(dependency, self.snapshot.folder / dependency.def_path)
        return stage

    def save_experiment(self, name: str) -> str | None:
        """Saves the run as a DVC experiment, so that runs can be compared without a commit on a branch.

        It holds the snapshot that the stages worked on, never what lies in the workspace by now.
        """
        assert self.snapshot is not None  # noqa: S101  (a run ends within its snapshot)
        files = {name: self.snapshot.folder / name for name in SNAPSHOT_FILES}
        for path in ("dvc.lock", TEST_EVALUATIONS):
            files[path] = self.workspace / path
        return save_experiment(self.workspace, name, {name: file for name, file in files.items() if file.is_file()})

    def states(self) -> dict[str, str]:
        """Stage → `changed` or `missing`, for those that `dvc status` has something to say about."""
        with self._operation() as repo:
            repo._reset()
            status = repo.status()
        states = {}
        for name, changes in status.items():
            outs = [
                state
                for change in changes
                if isinstance(change, dict)
                for state in change.get("changed outs", {}).values()
            ]
            states[str(name).removeprefix("dvc.yaml:")] = "missing" if outs and set(outs) == {"deleted"} else "changed"
        return states

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
            lock = load_yaml(path)
            position = {name: number for number, name in enumerate(stages())}
            ordered = sorted(lock["stages"], key=lambda name: (position.get(name, len(position)), name))
            if ordered != list(lock["stages"]):
                dump_yaml(path, {**lock, "stages": {name: lock["stages"][name] for name in ordered}})

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
            message = str(error).rstrip(".")
            if "are missing from" in message:
                raise InputError(
                    f"{message}: put it back, a section even empty (`validate: {{}}`, `validate: []`), a key as null (`encoder: null`)."
                ) from error
            seedling_error = explain(error) or explain_dvc(message, self.workspace)
            if seedling_error is not None:
                raise seedling_error from error
            raise SeedlingError(f"DVC: {message}. `dvc status` and `dvc doctor` tell more.") from error


def _same_rows(visited: Path, output: Path) -> bool:
    from seedling.scrape.visits import same_rows  # loads the crawler, which a run without a visit does not need

    return same_rows(visited, output)


def _open(workspace: Path) -> Repo:
    if not (workspace / ".dvc").is_dir():
        raise InputError(
            f"{workspace} is no Seedling workspace (it has no .dvc): make one with `seedling init DIR --images PATH`, "
            "or name another with --workspace."
        )
    check_tracked_files(workspace)
    try:
        repo = Repo(str(workspace), _wait_for_lock=True)
    except DvcException as error:
        raise InputError(f"DVC cannot open {workspace}: {error}. Is its .git still there?") from error
    _check_cache_path(repo)
    return repo


def _check_cache_path(repo: Repo) -> None:
    """Raises InputError for a cache whose path has braces, which each command of DVC takes for a placeholder."""
    path = str(repo.cache.local.path)
    if "{" in path or "}" in path:
        raise InputError(
            f"DVC cannot use a cache whose path has braces, {path}: rename that folder, or set another one with "
            "`dvc cache dir --global`."
        )


def create_repository(folder: Path) -> None:
    """`dvc init` and `dvc add data`. Raises InputError where DVC cannot."""
    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):  # DVC's advice on its own commands
            Repo.init(str(folder)).close()
            with Repo(str(folder)) as repo, _inside(folder):
                _check_cache_path(repo)
                repo.add(["data"])
    except DvcException as error:
        raise InputError(f"DVC cannot make a repository of {folder}: {error}") from error


def renew_links_of(folder: Path) -> None:
    """Renews the links of a workspace that was moved, see `renew_links`. Raises InputError where DVC cannot open it."""
    try:
        with Repo(str(folder)) as repo:
            renew_links(repo)
    except DvcException as error:
        raise InputError(f"DVC cannot open {folder}: {error}") from error


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

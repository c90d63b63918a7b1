"""DVC's cache and remotes: reads states without a lock, pushes, merges data, and removes unused cache objects."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.utils.serialize import load_yaml
from dvc_data.hashfile import load as load_object
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta
from dvc_data.hashfile.tree import MergeError as TreeMergeError
from dvc_data.hashfile.tree import merge as merge_trees

from seedling.errors import InputError, SeedlingError, WorkspaceBusy
from seedling.versioning.yaml_limits import limit_yaml, parse_yaml
from seedling.workspace import DATA_POINTER, DVC_LOCK, DVC_YAML, Workspace

LOCK_WRITE_SECONDS = 2.0  # a dvc.lock that cannot be read and is younger than this is read again


@dataclass(frozen=True)
class CacheUse:
    """Objects and run-cache entries in DVC's local cache that no kept revision needs, and their sizes in bytes."""

    objects: list[Path]
    object_bytes: int
    run_entries: list[Path]
    run_entry_bytes: int


def read_states(workspace: Path) -> dict[str, str]:
    """Return stage → `changed` or `missing`, for stages that are not up to date.

    The function takes no lock, so it works during a run. Raises InputError if dvc.yaml or dvc.lock cannot be read.
    """
    while True:
        try:
            return _read_states(workspace)
        except SeedlingError:
            # `dvc repro` and `dvc commit` write dvc.lock in place, so that a reader can see half of it.
            if not _changed_recently(Workspace(workspace).dvc_lock):
                raise
            time.sleep(0.05)


def _changed_recently(path: Path) -> bool:
    return path.is_file() and time.time() - path.stat().st_mtime < LOCK_WRITE_SECONDS


def _read_states(workspace: Path) -> dict[str, str]:
    states: dict[str, str] = {}
    with _opened(workspace) as repo:
        for stage in repo.index.stages:
            changes: list[Any] = []
            try:
                # The public Stage.status waits for a running stage; these methods do not.
                stage._status_deps(changes)
                stage._status_outs(changes, None)
                stage._status_stage(changes)
            except (OSError, DvcException):  # the stage's files are being replaced
                changes.append("changed")
            if not changes:
                continue
            output_states = {
                state
                for change in changes
                if isinstance(change, dict)
                for state in change.get("changed outs", {}).values()
            }
            states[str(stage.addressing)] = "missing" if output_states == {"deleted"} else "changed"
    return states


def locked_output_paths(workspace: Path) -> list[str]:
    """Return the output paths, relative to the workspace, that running processes lock through DVC."""
    try:
        locks = json.loads(Workspace(workspace).dvc_process_locks.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # nothing is locked, or the file is being written
        return []
    return [
        Path(path).relative_to(workspace).as_posix()
        for path, holder in locks.get("write", {}).items()
        if Path(path).is_relative_to(workspace) and psutil.pid_exists(int(holder["pid"]))
    ]


def default_remote(workspace: Path) -> dict[str, Any] | None:
    """Return the settings of DVC's default remote, including its `name`; None if there is no default remote."""
    with _opened(workspace) as repo:
        name = repo.config["core"].get("remote")
        return None if name is None else {"name": name, **repo.config["remote"].get(name, {})}


def set_default_remote(workspace: Path, name: str, settings: dict[str, str]) -> None:
    """Write the default remote to .dvc/config, which git tracks, as `dvc remote add --default` does."""
    with _opened(workspace) as repo, repo.config.edit("repo") as config:
        config["core"]["remote"] = name
        config["remote"][name] = settings


def remote_names(workspace: Path) -> list[str]:
    """Return the names of DVC's remotes."""
    with _opened(workspace) as repo:
        return sorted(repo.config["remote"])


def reach_remote(workspace: Path, remote: str) -> None:
    """Request the remote's top folder. Raises the errors of the remote's library if it cannot be reached."""
    with _opened(workspace) as repo:
        _set_timeouts(repo, remote)
        store = repo.cloud.get_remote_odb(remote)
        store.fs.exists(store.path)


def push_all(workspace: Path, remote: str, revisions: Iterable[str]) -> int:
    """Push the data and outputs of the workspace and the revisions, and the run cache; return the transfer count."""
    with _opened(workspace) as repo:
        _set_timeouts(repo, remote)
        transferred: int = repo.push(run_cache=True, remote=remote, revs=list(revisions) or None)
        return transferred


def _set_timeouts(repo: Repo, remote: str) -> None:
    """Set shorter timeouts for S3, whose library waits a minute for each of many connections by default."""
    settings = repo.config["remote"][remote]
    if str(settings["url"]).startswith("s3://"):
        settings.setdefault("connect_timeout", 10)
        settings.setdefault("read_timeout", 60)


def unused_cache(workspace: Path, revisions: Iterable[str], *, all_commits: bool = False) -> CacheUse:
    """Find the cache objects and run-cache entries that the workspace, branches, tags and `revisions` do not need."""
    with _opened(workspace) as repo, lock_repo(repo):
        folders = (Path(repo.cache.local.path), Path(repo.stage_cache.cache_dir))
        if all(folder.resolve().is_relative_to(workspace.resolve()) for folder in folders):
            used_objects = repo.used_objs(
                all_branches=True, all_tags=True, all_commits=all_commits, revs=list(revisions), force=True
            )
            used_digests = {digest.value for digests in used_objects.values() for digest in digests}
        else:
            raise InputError(
                f"DVC's cache is {repo.cache.local.path}, which other repositories may share: `seedling clean` "
                "removes objects only from a workspace's own cache; `dvc gc --projects` cleans a shared one."
            )
        store = repo.cache.local
        objects = [Path(store.oid_to_path(digest)) for digest in store.all() if digest not in used_digests]
        entries = [path for path in _run_entries(repo) if not _output_digests(path) <= used_digests]
    return CacheUse(objects, _size(objects), entries, _size(entries))


def merge_data(workspace: Path, pointer: Path, *, base: str | None, ours: str, theirs: str, prefer: str | None) -> str:
    """Merge two versions of data/, write the pointer data.dvc and check out data/; return a phrase about the result.

    base, ours, theirs: the contents of data.dvc in the common ancestor and on both sides. prefer: use all data of one
    side instead of merging.

    Raises InputError if data/ has changes that are not in data.dvc, if both sides changed the same file, or if the
    data of a side is neither in the cache nor on a remote.
    """
    pointer.write_text(ours, encoding="utf-8")
    with _opened(workspace) as repo, lock_repo(repo):
        (stage,) = repo.stage.collect(DATA_POINTER)
        data = stage.outs[0]
        if data.exists and data.status():
            raise InputError(
                f"{Workspace(workspace).data} has changes that were not committed before the merge: run "
                "`git merge --abort` and `dvc add data`, commit data.dvc, and merge again."
            )
        ancestor, our_digest, their_digest = (None if base is None else _digest(base)), _digest(ours), _digest(theirs)
        _fetch(repo, [digest for digest in (ancestor, our_digest, their_digest) if digest is not None])
        merged: Any
        if prefer is not None:
            merged = load_object(data.cache, our_digest if prefer == "ours" else their_digest)
        else:
            try:
                merged = merge_trees(
                    data.cache, ancestor, our_digest, their_digest, allowed=["add", "remove", "change"]
                )  # type: ignore[no-untyped-call]
            except TreeMergeError as error:
                raise InputError(
                    f"Both sides changed the same files of data/ ({error}): use all data of one side with "
                    "`seedling resolve --data ours` or `--data theirs`."
                ) from error
        data.cache.add(merged.path, merged.fs, merged.oid)
        _fetch(repo, [digest for _, _, digest in merged])
        size = sum(Path(data.cache.oid_to_path(digest.value)).stat().st_size for _, _, digest in merged)
        data.hash_info, data.files, data.meta = merged.hash_info, None, Meta(size=size, nfiles=len(merged), isdir=True)
        stage.dump()
    with _opened(workspace) as repo:
        repo.checkout([DATA_POINTER], force=True)
    origin = "the files of both sides" if prefer is None else f"the files of one side ({prefer})"
    return f"{origin}, {len(merged):,} in total; data/ is up to date."


def _digest(pointer: str) -> HashInfo:
    try:
        output = parse_yaml(pointer, DATA_POINTER)["outs"][0]
        return HashInfo("md5", str(output["md5"]))
    except (DvcException, KeyError, IndexError, TypeError) as error:
        raise InputError("data.dvc of one side cannot be read: use the other side with `git checkout`.") from error


def _fetch(repo: Repo, digests: list[HashInfo]) -> None:
    missing = [digest for digest in digests if not repo.cache.local.exists(digest.value)]
    if not missing:
        return
    try:
        repo.cloud.pull(missing)
    except DvcException as error:
        raise _not_available(len(missing)) from error
    if still_missing := [digest for digest in missing if not repo.cache.local.exists(digest.value)]:
        raise _not_available(len(still_missing))


def _not_available(count: int) -> InputError:
    return InputError(
        f"{count} objects of data/ are neither in DVC's cache nor on its remote: run `dvc push` on the machine that "
        "has them, then `seedling resolve` again."
    )


def remove_cache_files(workspace: Path, paths: Iterable[Path]) -> None:
    """Remove objects or run-cache entries, and folders that become empty, under DVC's lock."""
    with _opened(workspace) as repo, lock_repo(repo):
        for path in paths:
            path.unlink(missing_ok=True)
            for folder in (path.parent, path.parent.parent):
                if folder != Path(repo.cache.local.path) and not any(folder.iterdir()):
                    folder.rmdir()


def _run_entries(repo: Repo) -> list[Path]:
    run_cache = Path(repo.stage_cache.cache_dir)
    return sorted(path for path in run_cache.glob("*/*/*") if path.is_file())


def _output_digests(path: Path) -> set[str]:
    """Return the digests of the outputs in a run-cache entry."""
    try:
        return {str(output["md5"]) for output in load_yaml(path).get("outs", []) if "md5" in output}
    except (DvcException, AttributeError, TypeError):
        return {""}  # the entry is not readable, so DVC cannot use it either


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.exists())


@contextmanager
def _opened(workspace: Path) -> Iterator[Repo]:
    """Open a repository that is separate from the ledger's, and hide DVC's progress bars."""
    logging.getLogger("dvc").setLevel(logging.ERROR)
    limit_yaml()
    if not Workspace(workspace).dvc_folder.is_dir():
        raise InputError(
            f"{workspace} is not a Seedling workspace (it has no .dvc): name one with --workspace, or create one with "
            "`seedling init`."
        )
    try:
        with (
            chdir(workspace),  # DVC resolves relative paths such as data.dvc against the working directory
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
            Repo(str(workspace)) as repo,
        ):
            yield repo
    except LockError as error:
        raise WorkspaceBusy(f"Another dvc command is running in {workspace}: wait for it, then run again.") from error
    except DvcException as error:
        remedy = ""
        for name in (DVC_LOCK, DVC_YAML, DATA_POINTER):
            path = workspace / name
            if path.is_file() and "<<<<<<<" in path.read_text(encoding="utf-8", errors="replace"):
                remedy = f" {path} has conflict markers: run `seedling resolve`."
        raise SeedlingError(f"DVC: {str(error).rstrip('.')}.{remedy}") from error

"""DVC's stores: what `seedling status` reads without a lock, what a run pushes, and what `seedling clean` removes.

Beside seedling/versioning/ledger.py the only module that imports dvc.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc.utils.serialize import load_yaml
from dvc_data.hashfile import load as load_object
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta
from dvc_data.hashfile.tree import MergeError as TreeMergeError
from dvc_data.hashfile.tree import merge as merge_trees

from seedling.errors import InputError, SeedlingError, WorkspaceBusy
from seedling.versioning.yaml_limits import limit_yaml, parse_yaml

limit_yaml()


@dataclass(frozen=True)
class CacheUse:
    """Objects and run-cache entries of DVC's local cache that nothing kept needs, and their sizes in bytes."""

    objects: list[Path]
    object_bytes: int
    run_entries: list[Path]
    run_entry_bytes: int


def read_states(workspace: Path) -> dict[str, str]:
    """Stage → `changed` or `missing`, for stages that are not up to date; holds no lock, so that it works during a run.

    Raises InputError where dvc.yaml or dvc.lock cannot be read.
    """
    states: dict[str, str] = {}
    with _opened(workspace) as repo:
        for stage in repo.index.stages:
            changes: list[Any] = []
            try:
                # The public Stage.status waits for the stage that is at work; these do not.
                stage._status_deps(changes)
                stage._status_outs(changes, None)
                stage._status_stage(changes)
            except (OSError, DvcException):  # its files were replaced meanwhile
                changes.append("changed")
            if not changes:
                continue
            outputs = [
                state
                for change in changes
                if isinstance(change, dict)
                for state in change.get("changed outs", {}).values()
            ]
            missing = bool(outputs) and set(outputs) == {"deleted"}
            states[str(stage.addressing)] = "missing" if missing else "changed"
    return states


def paths_at_work(workspace: Path) -> list[str]:
    """The output paths, relative to the workspace, which living processes hold through DVC: of stages that are running."""
    try:
        held = json.loads((workspace / ".dvc" / "tmp" / "rwlock").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # nobody holds anything, or it is being written
        return []
    return [
        Path(path).relative_to(workspace).as_posix()
        for path, holder in held.get("write", {}).items()
        if Path(path).is_relative_to(workspace) and psutil.pid_exists(int(holder["pid"]))
    ]


def default_remote(workspace: Path) -> dict[str, Any] | None:
    """The settings of DVC's default remote, with its `name`; None where there is none."""
    with _opened(workspace) as repo:
        name = repo.config["core"].get("remote")
        return None if name is None else {"name": name, **repo.config["remote"].get(name, {})}


def set_default_remote(workspace: Path, name: str, settings: dict[str, str]) -> None:
    """`dvc remote add --default`: writes the remote into .dvc/config, which git tracks."""
    with _opened(workspace) as repo, repo.config.edit("repo") as config:
        config["core"]["remote"] = name
        config["remote"][name] = settings


def remote_names(workspace: Path) -> list[str]:
    """The names of DVC's remotes."""
    with _opened(workspace) as repo:
        return sorted(repo.config["remote"])


def reach_remote(workspace: Path, remote: str) -> None:
    """Asks the remote for its top folder. Raises whatever its library raises where it cannot be reached."""
    with _opened(workspace) as repo:
        _limit_waiting(repo, remote)
        store = repo.cloud.get_remote_odb(remote)
        store.fs.exists(store.path)


def push_all(workspace: Path, remote: str, revisions: Iterable[str]) -> int:
    """Pushes the workspace's data and outputs, those of the revisions, and the run cache; gives the number of transfers."""
    with _opened(workspace) as repo:
        _limit_waiting(repo, remote)
        transferred: int = repo.push(run_cache=True, remote=remote, revs=list(revisions) or None)
        return transferred


def _limit_waiting(repo: Repo, remote: str) -> None:
    """S3's library waits a minute for each of many connections unless told otherwise."""
    settings = repo.config["remote"][remote]
    if str(settings["url"]).startswith("s3://"):
        settings.setdefault("connect_timeout", 10)
        settings.setdefault("read_timeout", 60)


def unused_cache(workspace: Path, revisions: Iterable[str], *, all_commits: bool = False) -> CacheUse:
    """What the workspace, the branches, the tags, the experiments in `revisions` and further revisions in it do not need."""
    with _opened(workspace) as repo, lock_repo(repo):
        folders = (Path(repo.cache.local.path), Path(repo.stage_cache.cache_dir))
        if all(folder.resolve().is_relative_to(workspace.resolve()) for folder in folders):
            used_objects = repo.used_objs(
                all_branches=True, all_tags=True, all_commits=all_commits, revs=list(revisions), force=True
            )
            used = {item.value for items in used_objects.values() for item in items}
        else:
            raise InputError(
                f"DVC's cache is {repo.cache.local.path}, which other repositories may share: `seedling clean` "
                "removes objects only from a workspace's own cache; `dvc gc --projects` cleans a shared one."
            )
        store = repo.cache.local
        objects = [Path(store.oid_to_path(name)) for name in store.all() if name not in used]
        entries = [path for path in _run_entries(repo) if not _entry_outputs(path) <= used]
    return CacheUse(objects, _size(objects), entries, _size(entries))


def merge_data(workspace: Path, pointer: Path, *, base: str | None, ours: str, theirs: str, prefer: str | None) -> str:
    """Merges the files of two versions of data/, writes the pointer data.dvc and brings data/ to it; gives a phrase on what it holds.

    base, ours, theirs: the contents of data.dvc in the common ancestor and on both sides; prefer: takes one side as a whole.

    Raises InputError where data/ holds changes that data.dvc does not know, where both sides changed the same file, or where a side is neither in
    the cache nor on a remote.
    """
    pointer.write_text(ours, encoding="utf-8")
    with _opened(workspace) as repo, lock_repo(repo):
        (stage,) = repo.stage.collect("data.dvc")
        data = stage.outs[0]
        if data.exists and data.status():
            raise InputError(
                f"{workspace / 'data'} holds changes that were not committed before the merge: `git merge --abort`, `dvc add data`, "
                "commit data.dvc, and merge again."
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
                    f"Both sides changed the same files of data/ ({error}): `seedling resolve --data ours` or `--data theirs` takes one "
                    "side's data as a whole."
                ) from error
        data.cache.add(merged.path, merged.fs, merged.oid)
        _fetch(repo, [digest for _, _, digest in merged])
        size = sum(Path(data.cache.oid_to_path(digest.value)).stat().st_size for _, _, digest in merged)
        data.hash_info, data.files, data.meta = merged.hash_info, None, Meta(size=size, nfiles=len(merged), isdir=True)
        stage.dump()
    with _opened(workspace) as repo:
        repo.checkout(["data.dvc"], force=True)
    whose = "the files of both sides" if prefer is None else f"the files of one side ({prefer})"
    return f"{whose}, {len(merged):,} in all; data/ holds them."


def _digest(pointer: str) -> HashInfo:
    try:
        output = parse_yaml(pointer, "data.dvc")["outs"][0]
        return HashInfo("md5", str(output["md5"]))
    except (DvcException, KeyError, IndexError, TypeError) as error:
        raise InputError("One side's data.dvc cannot be read: take the other with `git checkout`.") from error


def _fetch(repo: Repo, digests: list[HashInfo]) -> None:
    missing = [digest for digest in digests if not repo.cache.local.exists(digest.value)]
    if not missing:
        return
    try:
        repo.cloud.pull(missing)
    except DvcException as error:
        raise _not_available(len(missing)) from error
    if left := [digest for digest in missing if not repo.cache.local.exists(digest.value)]:
        raise _not_available(len(left))


def _not_available(count: int) -> InputError:
    return InputError(
        f"{count} objects of data/ are neither in DVC's cache nor on its remote: `dvc push` on the machine that has them, then "
        "`seedling resolve` again."
    )


def remove_cache_files(workspace: Path, paths: Iterable[Path]) -> None:
    """Removes objects or run-cache entries, under DVC's lock."""
    with _opened(workspace) as repo, lock_repo(repo):
        for path in paths:
            path.unlink(missing_ok=True)
            for folder in (path.parent, path.parent.parent):
                if folder != Path(repo.cache.local.path) and not any(folder.iterdir()):
                    folder.rmdir()


def _run_entries(repo: Repo) -> list[Path]:
    runs = Path(repo.stage_cache.cache_dir)
    return sorted(path for path in runs.glob("*/*/*") if path.is_file())


def _entry_outputs(path: Path) -> set[str]:
    try:
        return {str(output["md5"]) for output in load_yaml(path).get("outs", []) if "md5" in output}
    except (DvcException, AttributeError, TypeError):
        return {""}  # unreadable, so that DVC cannot use it either


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.exists())


@contextmanager
def _opened(workspace: Path) -> Iterator[Repo]:
    """A repository of its own, apart from the ledger's; DVC's progress bars are not shown."""
    logging.getLogger("dvc").setLevel(logging.ERROR)
    if not (workspace / ".dvc").is_dir():
        raise InputError(
            f"{workspace} is not a Seedling workspace (it has no .dvc): name one with --workspace, or make one with `seedling init`."
        )
    from dvc.lock import LockError

    try:
        with (
            chdir(workspace),  # DVC resolves names such as data.dvc against the working directory
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
            Repo(str(workspace)) as repo,
        ):
            yield repo
    except LockError as error:
        raise WorkspaceBusy(f"Another dvc command is at work in {workspace}: wait for it, then run again.") from error
    except DvcException as error:
        remedy = ""
        for name in ("dvc.lock", "dvc.yaml", "data.dvc"):
            path = workspace / name
            if path.is_file() and "<<<<<<<" in path.read_text(encoding="utf-8", errors="replace"):
                remedy = f" {path} has conflict markers: run `seedling resolve`."
        raise SeedlingError(f"DVC: {str(error).rstrip('.')}.{remedy}") from error

"""Tracks data/ with DVC while other programs may write into it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvc.repo import Repo
from dvc.utils.serialize import load_yaml
from dvc_data.hashfile.hash import file_md5

from seedling.errors import InputError
from seedling.terminal.notices import state_once
from seedling.versioning.snapshot import Listing, list_data
from seedling.workspace import DATA, DATA_POINTER, Workspace

SETTLE_ATTEMPTS = 5
SETTLE_SECONDS = 1.0


def state_ignored(repo: Repo, pointer: Any, workspace: Path, listing: Listing) -> None:
    """Warn if the workspace's .dvcignore excludes files of data/, since runs do not use them."""
    if (pointer.meta.nfiles or 0) >= len(listing.files):
        return
    data = Workspace(workspace).data
    ignored = [name for name in sorted(listing.files) if repo.dvcignore.is_ignored_file(str(data / name))]
    if ignored:
        state_once(
            f"{len(ignored):,} files of data/ are hidden from DVC by {Workspace(workspace).dvc_ignore}, such "
            f"as {ignored[0]}, and runs do not use them: remove the pattern, or move the files out of data/."
        )


def pointer_was_pulled(workspace: Path, loaded: Any) -> bool:
    """Whether data.dvc changed since the last run, for example by `git pull`, while data/ did not.

    Adding data/ would then undo the pulled change.
    """
    last_pointer = Workspace(Workspace(workspace).snapshot).data_pointer
    if not last_pointer.is_file() or last_pointer.read_bytes() == Workspace(workspace).data_pointer.read_bytes():
        return False
    (entry,) = load_yaml(str(last_pointer))["outs"]
    (output,) = loaded.outs
    return bool(output.get_hash().value == entry["md5"])


def add_settled(repo: Repo, workspace: Path) -> bool:
    """Run `dvc add data`, and repeat it while its files change; return whether data/ was added.

    DVC hashes a file and then stores it, so a file that grows in between is stored under the wrong hash. If data/
    keeps changing after SETTLE_ATTEMPTS, the previously tracked version stays, and the next run adds the changes.
    """
    data, pointer = Workspace(workspace).data, Workspace(workspace).data_pointer
    tracked_before = pointer.read_bytes() if pointer.exists() else None
    for _ in range(SETTLE_ATTEMPTS):
        before = list_data(data)
        repo.add([DATA])
        changed = list_data(data).changed_since(before)
        if not changed:
            return True
        _drop_torn_objects(repo, changed)
        time.sleep(SETTLE_SECONDS)
    if tracked_before is None:
        raise InputError(f"{data / changed[0]} is still being written: wait until it is complete, then run again.")
    pointer.write_bytes(tracked_before)
    return False


def _drop_torn_objects(repo: Repo, changed: Sequence[str]) -> None:
    """Remove the cache objects of these files of data/ whose content does not match their hash."""
    repo._reset()
    ((output,),) = (stage.outs for stage in repo.stage.collect(DATA_POINTER))
    digests = {"/".join(key): digest.value for key, _, digest in output.get_obj() or ()}
    for name in changed:
        if name in digests:
            cached = Path(output.cache.oid_to_path(digests[name]))
            if cached.is_file() and file_md5(str(cached), output.cache.fs) != digests[name]:
                cached.unlink()

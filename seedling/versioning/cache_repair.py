"""DVC's cache beside generations that are whole: missing objects are put back from the files, links into a cache that was moved are renewed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seedling.files.data_files import OF_DVC
from seedling.terminal.notices import state_once


def recommit_whole_outputs(stage: Any) -> bool:
    """Copies the outputs of a DVC stage to the cache where they are what dvc.lock says, by their hashes, and only the cache lacks
    them; gives whether that was so.

    A cache that was deleted, moved to another disk, or not pulled is filled this way.
    """
    if stage.changed_stage() or stage.changed_deps() or any(out.workspace_status() for out in stage.outs):
        return False
    stage.commit()
    state_once(
        "DVC's cache lacked outputs that are whole in the workspace: they were put back, and nothing was computed again."
    )
    return True


def renew_links(repo: Any) -> int:
    """Replaces links into a DVC cache that is no longer where they lead, as after the workspace was moved; gives how many.

    With `cache.type = symlink`, what DVC tracks are absolute links. Only links whose object the repository's cache holds are
    replaced. repo: a DVC repository, opened.
    """
    if "symlink" not in repo.cache.local.cache_types:
        return 0
    renewed = 0
    for folder in ("data", "generations", "models", "reports"):
        for link, target in _dead_links(Path(repo.root_dir, folder)):
            prefix, name = Path(target).parts[-2:]
            cached = Path(repo.cache.local.oid_to_path(prefix + name.removesuffix(".dir")))
            if cached.is_file():
                beside = link.with_name(f".{link.name}.link")
                beside.unlink(missing_ok=True)
                beside.symlink_to(cached)
                beside.replace(link)
                renewed += 1
    return renewed


def _dead_links(folder: Path) -> Iterator[tuple[Path, str]]:
    """Links to files that are not there and are named like objects of a DVC cache, each with its target."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_symlink() and not path.exists() and OF_DVC.search(target := str(path.readlink())):
                yield path, target

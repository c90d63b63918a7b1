"""Repairs DVC's cache: adds missing objects from intact generations, and renews links into a cache that was moved."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seedling.files.data_files import OF_DVC
from seedling.terminal.notices import state_once
from seedling.workspace import DATA, STAGE_OUTPUTS


def recommit_whole_outputs(stage: Any) -> bool:
    """Copy the outputs of a DVC stage to the cache if they match the hashes in dvc.lock and only the cache lacks them.

    Returns whether the outputs were copied. This fills a cache that was deleted, moved to another disk, or not pulled.
    """
    if stage.changed_stage() or stage.changed_deps() or any(out.workspace_status() for out in stage.outs):
        return False
    stage.commit()
    state_once(
        "DVC's cache lacked outputs that are intact in the workspace: they were added to the cache, and no stage ran."
    )
    return True


def renew_links(repo: Any) -> int:
    """Replace broken links into a DVC cache, for example after the workspace was moved; return the number of links.

    With `cache.type = symlink`, DVC's tracked files are absolute links. Only links whose object is in the repository's
    cache are replaced. repo: an open DVC repository.
    """
    if "symlink" not in repo.cache.local.cache_types:
        return 0
    renewed_count = 0
    for folder in (DATA, *STAGE_OUTPUTS):
        for link, target in _broken_links(Path(repo.root_dir, folder)):
            prefix, name = Path(target).parts[-2:]
            cached = Path(repo.cache.local.oid_to_path(prefix + name.removesuffix(".dir")))
            if cached.is_file():
                temporary = link.with_name(f".{link.name}.link")
                temporary.unlink(missing_ok=True)
                temporary.symlink_to(cached)
                temporary.replace(link)
                renewed_count += 1
    return renewed_count


def _broken_links(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield broken links whose target is named like an object of a DVC cache, each with its target."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_symlink() and not path.exists() and OF_DVC.search(target := str(path.readlink())):
                yield path, target

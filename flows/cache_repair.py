"""DVC's cache beside generations that are whole: objects that are missing are put back from the files, and nothing is computed again."""

from __future__ import annotations

from typing import Any

from tasks.notices import state_once


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

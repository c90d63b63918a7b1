"""Which revision of a model or dataset of the Hugging Face Hub is taken, said where nothing pins it."""

from __future__ import annotations

from seedling.terminal.notices import state_once

MOVING_REVISIONS = frozenset({None, "main", "master"})


def warn_if_unpinned(name: str, revision: str | None, remedy: str) -> None:
    """States once that another commit may be taken tomorrow. remedy: the key and the value that pin it."""
    if revision in MOVING_REVISIONS:
        state_once(
            f"{name} comes from the Hugging Face Hub at whatever commit is the newest. Whoever may change it there may change your model. "
            f"Pin it in params.yaml: {remedy}"
        )

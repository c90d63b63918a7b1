"""Warns about models and datasets of the Hugging Face Hub that are not pinned to a revision."""

from __future__ import annotations

from seedling.terminal.notices import state_once

MOVING_REVISIONS = frozenset({None, "main", "master"})


def warn_if_unpinned(name: str, revision: str | None, remedy: str) -> None:
    """Warn once that a later run may use another commit. remedy: the key and the value that pin the revision."""
    if revision in MOVING_REVISIONS:
        state_once(
            f"{name} is loaded from the Hugging Face Hub without a fixed revision, so a change there can change your "
            f"results. Pin it in params.yaml: {remedy}"
        )

"""The environment of git calls: a workspace is found by its folder, never by variables of a surrounding git command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# Those of `git rev-parse --local-env-vars` that say where a repository is; git sets them for its hooks.
REPOSITORY_VARIABLES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)


@contextmanager
def own_repository_only() -> Iterator[None]:
    """Removes the variables that name another repository, as within a git hook, while the block works."""
    removed = {name: os.environ.pop(name) for name in REPOSITORY_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(removed)

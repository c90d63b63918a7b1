"""Compares a run's memory limit with an estimate of what it needs, before the kernel kills it without a message.

The limit is the minimum of the machine's memory and the limits of this process's cgroups (containers, systemd,
Kubernetes).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal

import psutil

from seedling.errors import SeedlingError
from seedling.workspace import Workspace

GIB = 2**30
CGROUPS = Path("/sys/fs/cgroup")
UNLIMITED_BYTES = 2**60  # without a limit, cgroup v1 has a number near 2**63
BASE_BYTES = 1.0 * GIB
BYTES_PER_ROW = {"image": 40_000, "text": 30_000}


def memory_limit_bytes(cgroups: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """The maximum memory of this process: that of the machine, or the limit of a cgroup (v1 or v2, any parent)."""
    limits = [psutil.virtual_memory().total, *_cgroup_limits(cgroups, membership)]
    return min(limits)


def described_limit() -> str:
    """The limit as text, for messages."""
    limit, machine = memory_limit_bytes(), psutil.virtual_memory().total
    if limit < machine:
        return f"this container or service may use {limit / GIB:.1f} GiB of the machine's {machine / GIB:.1f} GiB"
    return f"the machine has {machine / GIB:.1f} GiB"


def _cgroup_limits(cgroups: Path, membership: Path) -> list[int]:
    limits: list[int] = []
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return limits
    for line in lines:
        hierarchy, controllers, path = (*line.split(":", 2), "", "")[:3]
        if hierarchy == "0" and not controllers:  # v2, mounted at the root or next to v1's controllers
            for root in (cgroups, cgroups / "unified"):
                limits += _limits_up(root, path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits_up(cgroups / "memory", path, "memory.limit_in_bytes")
    return limits


def _limits_up(root: Path, path: str, file: str) -> list[int]:
    """The limits of the group and its parents. In a container, the group's path may be missing below the mount."""
    limits = []
    folder = root / path.lstrip("/")
    while True:
        try:
            text = (folder / file).read_text(encoding="ascii").strip()
            if text.isdigit() and int(text) < UNLIMITED_BYTES:
                limits.append(int(text))
        except (OSError, ValueError):
            pass
        if folder == root or root not in folder.parents:
            return limits
        folder = folder.parent


def estimated_bytes(rows: int, modality: Literal["image", "text"]) -> int:
    """Estimates a run's peak memory: BASE_BYTES + rows * BYTES_PER_ROW, as measured (docs/requirements.md)."""
    return int(BASE_BYTES + rows * BYTES_PER_ROW[modality])


def memory_warning(rows: int, modality: Literal["image", "text"], limit: int | None = None) -> str | None:
    """Returns a warning if the run probably needs more memory than the limit, else None."""
    limit = memory_limit_bytes() if limit is None else limit
    needed = estimated_bytes(rows, modality)
    if needed <= limit:
        return None
    return (
        f"A run on {rows:,} rows needs about {needed / GIB:.1f} GiB of memory, and it may use {limit / GIB:.1f} GiB: "
        "it may be killed. Raise the limit, or use fewer rows (docs/requirements.md)."
    )


def expected_rows(workspace: Path) -> int:
    """Estimates the rows of a run: max(rows collected by the last run, files and packed rows in data/)."""
    import pyarrow.parquet as pq

    from seedling.files.reading import reading
    from seedling.records.manifest import read_manifest_if_any

    counts = [0]
    with contextlib.suppress(SeedlingError, OSError):
        collected = read_manifest_if_any(Workspace(workspace).generation("scrape"))
        counts += [] if collected is None else [collected.rows.rows_in]
    data = Workspace(workspace).data
    files = sum(len(names) for _, _, names in os.walk(data))
    for part in Workspace(workspace).packed_data.glob("*.parquet"):
        with contextlib.suppress(SeedlingError, OSError), reading(part):
            files += pq.read_metadata(part).num_rows - 1  # the part itself was counted as a file
    return max(*counts, files)

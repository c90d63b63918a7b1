"""How much memory a run may use, and how much it is likely to need: said before it starts, since the kernel kills without a word.

The limit is the smallest of the machine's memory and the limits of this process's cgroups (containers, systemd, Kubernetes).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal

import psutil

from seedling.errors import SeedlingError

GIB = 2**30
CGROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 2**60  # cgroup v1 writes a number near 2**63 where there is no limit


def memory_limit_bytes(cgroups: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """The most memory that this process may have: the machine's, or less where a cgroup says so (v1 and v2, any parent)."""
    limits = [psutil.virtual_memory().total, *_cgroup_limits(cgroups, membership)]
    return min(limits)


def described_limit() -> str:
    """The limit in words, for messages."""
    limit, machine = memory_limit_bytes(), psutil.virtual_memory().total
    if limit < machine:
        return f"this container or service may use {limit / GIB:.1f} GiB of the machine's {machine / GIB:.1f} GiB"
    return f"the machine has {machine / GIB:.1f} GiB"


def _cgroup_limits(cgroups: Path, membership: Path) -> list[int]:
    limits: list[int] = []
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return limits
    for line in lines:
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not controllers:  # v2, mounted at the top or beside v1's controllers
            for root in (cgroups, cgroups / "unified"):
                limits += _limits_up(root, path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits_up(cgroups / "memory", path, "memory.limit_in_bytes")
    return limits


def _limits_up(root: Path, path: str, file: str) -> list[int]:
    """The limits of the group and its parents. Inside a container the group's own path may not be there: its root is then the mount's."""
    limits = []
    folder = root / path.lstrip("/")
    while True:
        try:
            text = (folder / file).read_text(encoding="ascii").strip()
            if text.isdigit() and int(text) < UNLIMITED:
                limits.append(int(text))
        except (OSError, ValueError):
            pass
        if folder == root or root not in folder.parents:
            return limits
        folder = folder.parent


def estimated_bytes(rows: int, modality: Literal["image", "text"]) -> int:
    """What a run on so many rows is likely to need at its peak; the numbers were measured, see docs/requirements.md."""
    fixed, each = (BASE_BYTES, BYTES_A_ROW[modality])
    return int(fixed + rows * each)


BASE_BYTES = 1.0 * GIB
BYTES_A_ROW = {"image": 40_000, "text": 30_000}


def memory_warning(rows: int, modality: Literal["image", "text"], limit: int | None = None) -> str | None:
    """A sentence where the run is likely to need more memory than it may have, else None."""
    limit = memory_limit_bytes() if limit is None else limit
    needed = estimated_bytes(rows, modality)
    if needed <= limit:
        return None
    return (
        f"A run on {rows:,} rows needs about {needed / GIB:.1f} GiB of memory, and it may use {limit / GIB:.1f} GiB: it may be killed. "
        "Raise the limit, or take fewer rows (docs/requirements.md)."
    )


def expected_rows(workspace: Path) -> int:
    """How many rows a run is likely to have: those that were collected last, or the files and packed rows in data/, whichever are more."""
    import pyarrow.parquet as pq

    from seedling.files.reading import read_json, reading

    counts = [0]
    with contextlib.suppress(SeedlingError, OSError, KeyError, TypeError):
        counts.append(int(read_json(workspace / "generations" / "scrape" / "manifest.json")["rows"]["in"]))
    data = workspace / "data"
    files = sum(len(names) for _, _, names in os.walk(data))
    for part in (data / "packed").glob("*.parquet"):
        with contextlib.suppress(SeedlingError, OSError), reading(part):
            files += pq.read_metadata(part).num_rows - 1  # the part itself was counted as a file
    return max(*counts, files)

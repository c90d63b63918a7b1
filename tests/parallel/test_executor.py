"""How much work is under way at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from seedling.parallel.executor import pieces_at_once, usable_cores

GIB = 2**30


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A memory cgroup (v1) with a limit of 2 GB; the test is skipped where none can be made."""
    group = Path("/sys/fs/cgroup/memory") / f"seedling-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text("2000000000")
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made: {error}")
    yield group
    group.rmdir()


@pytest.mark.parametrize("memory_bytes", [2 * GIB, int(2.4 * GIB)])
def test_little_memory_means_one_piece_on_one_core(memory_bytes: int) -> None:
    """There is no room for training two networks at the same time."""
    assert pieces_at_once(memory_bytes) == usable_cores(memory_bytes) == 1


def test_a_process_in_a_small_cgroup_works_on_one_piece(small_cgroup: Path) -> None:
    """The limit is the real one of the kernel, which would kill the process."""
    script = (
        f"import os; open('{small_cgroup}/cgroup.procs', 'w').write(str(os.getpid()))\n"
        "from seedling.parallel.executor import pieces_at_once, usable_cores; print(pieces_at_once(), usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


def test_enough_memory_means_a_piece_per_core_and_at_least_two() -> None:
    """Pieces wait for disks, too."""
    assert pieces_at_once(8 * GIB) >= 2
    assert pieces_at_once(8 * GIB) >= usable_cores(8 * GIB) >= 1

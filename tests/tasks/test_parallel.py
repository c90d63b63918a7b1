"""How much work is under way at once."""

from __future__ import annotations

import pytest

from tasks.parallel import pieces_at_once, usable_cores

GIB = 2**30


@pytest.mark.parametrize(("memory_bytes", "pieces"), [(2 * GIB, 1), (int(2.4 * GIB), 1)])
def test_little_memory_means_one_piece_on_one_core(memory_bytes: int, pieces: int) -> None:
    """Two networks that learn at once would not fit beside the run."""
    assert pieces_at_once(memory_bytes) == usable_cores(memory_bytes) == pieces


def test_enough_memory_means_a_piece_per_core_and_at_least_two() -> None:
    """Pieces wait for disks, too."""
    assert pieces_at_once(8 * GIB) >= 2
    assert pieces_at_once(8 * GIB) >= usable_cores(8 * GIB) >= 1

"""The row that `seedling review --row` begins with."""

from __future__ import annotations

import pyarrow as pa
import pytest

from seedling.cli.reviewing import full_row_id
from seedling.errors import InputError
from seedling.review.rows import RowIds

FIRST, SECOND, OTHER = "1234567890" + "a" * 22, "12345678ff" + "b" * 22, "f" * 32
IDS = RowIds(pa.array([SECOND, OTHER, FIRST, FIRST]))


@pytest.mark.parametrize(
    ("row_id", "full"), [(FIRST, FIRST), ("1234567890", FIRST), ("12345678f", SECOND), ("f" * 8, OTHER), (OTHER, OTHER)]
)
def test_the_first_digits_of_an_id_are_enough(row_id: str, full: str) -> None:
    """As long as no other row begins with them; an id that two rows share is one id."""
    assert full_row_id(row_id, IDS) == full


@pytest.mark.parametrize(
    ("row_id", "error"),
    [
        ("1234567", "at least the first 8 digits"),
        ("12345678", "2 rows begin with 12345678"),
        ("abcdef12", "There is no row abcdef12 to review"),
        (FIRST + "0", "There is no row"),
        ("~" * 32, "There is no row"),
        ("ffffffffé", "There is no row"),
    ],
)
def test_digits_of_no_row_or_of_several_are_an_error(row_id: str, error: str) -> None:
    """The message says how to name one row."""
    with pytest.raises(InputError, match=error):
        full_row_id(row_id, IDS)

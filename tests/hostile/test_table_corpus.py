"""Each unusual or broken table of the corpus gives its expected rows, reasons or error: nothing is silently lost or
changed.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hostile.table_corpus import CORPUS, Case

from seedling.config.sources import TableSource
from seedling.errors import InputError
from seedling.scrape.table import read_table


def test_the_corpus_is_large_enough() -> None:
    """At least sixty cases with unique names."""
    assert len({case.name for case in CORPUS}) == len(CORPUS) >= 60


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_each_table_gives_its_rows_or_its_error(case: Case, tmp_path: Path) -> None:
    """Text, label, split and reason of every row, in order."""
    (tmp_path / case.name).write_bytes(case.content)
    source = TableSource.model_validate({"kind": "table", "path": case.name, **case.settings})
    if case.error is not None:
        with pytest.raises(InputError, match=re.escape(case.error)):
            list(read_table(source, tmp_path, "text", 2**20))
        return
    items = list(read_table(source, tmp_path, "text", 2**20))
    table_rows = [("" if item.reason else item.load(), item.label, item.split, item.reason) for item in items]
    assert table_rows == list(case.rows)

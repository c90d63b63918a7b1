"""Rows whose text has several lines, written by Python's csv module, are read as they were written."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hostile.test_table_dialects import read_back

TSV_OF_A_FORM = [("pos", "first line\nname\tAda"), ("neg", "plain")]
LETTERS = [("40", "Dear Ada\nwe are, well\nyours, Bob"), ("41", "plain")]
TABLE_IN_A_TEXT = [("40", "name\nAda\tx\nBob\ty"), ("41", "plain")]


@pytest.mark.parametrize(
    ("name", "header", "rows"),
    [
        ("form.tsv", ("label", "text"), TSV_OF_A_FORM),
        ("letters.csv", ("id", "text"), LETTERS),
        ("tables.tsv", ("id", "text"), TABLE_IN_A_TEXT),
    ],
)
def test_a_quoted_text_of_several_lines_is_one_row(
    name: str, header: tuple[str, str], rows: list[tuple[str, str]], tmp_path: Path
) -> None:
    """Also where its lines have as many delimiters as the header."""
    path = tmp_path / "written"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if name.endswith("tsv") else ",")
        writer.writerows([header, *rows])
    table_rows = read_back(tmp_path, name, path.read_bytes())
    expected = [text for _, text in rows]
    assert [(text, reason) for text, _, reason in table_rows] == [(text, None) for text in expected]

"""In every dialect and with any cell contents, a table is read as it was written, and no row is lost without a reason."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from seedling.config.sources import TableSource
from seedling.errors import InputError
from seedling.media.texts import clean
from seedling.scrape.table import read_table

# The same examples in every run; `make fuzz` tries random ones.
QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# Letters with everything that a dialect is made of; a carriage return alone is not written in quotes by Python's csv module.
CELLS = st.text(st.sampled_from("abcé 猫.,;\t|\"'\n\\=-"), min_size=1, max_size=30).filter(
    lambda text: bool(text.strip())
)
LABELS = st.sampled_from(["good", "bad", "so, so", 'the "other"'])
ROWS = st.lists(st.tuples(CELLS, LABELS), min_size=1, max_size=12)
DIALECTS = st.fixed_dictionaries(
    {
        "delimiter": st.sampled_from(",;\t|"),
        "lineterminator": st.sampled_from(["\n", "\r\n"]),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    }
)


def written(rows: list[tuple[str, ...]], dialect: dict[str, Any]) -> bytes:
    """The file that Python's csv module writes."""
    out = io.StringIO(newline="")
    csv.writer(out, **dialect).writerows(rows)
    return out.getvalue().encode()


def read_back(folder: Path, name: str, content: bytes) -> list[tuple[str, str | None, str | None]]:
    """(text, label, reason) of each row."""
    (folder / name).write_bytes(content)
    items = read_table(TableSource(kind="table", path=name), folder, "text", 2**20)
    return [("" if item.reason else str(item.load()), item.label, item.reason) for item in items]


@QUICK
@given(rows=ROWS, dialect=DIALECTS, name=st.sampled_from(["t.csv", "t.tsv"]), label_first=st.booleans())
def test_a_table_of_a_csv_writer_is_read_unchanged(
    rows: list[tuple[str, str]], dialect: dict[str, Any], name: str, label_first: bool, tmp_path: Path
) -> None:
    """Four delimiters, two line ends, three ways of quoting, either order of the columns, cells with all of their characters."""
    table = [("text", "label"), *rows]
    content = written([row[::-1] if label_first else row for row in table], dialect)
    table_rows = read_back(tmp_path, name, content)
    assert [(clean(text), label, reason) for text, label, reason in table_rows] == [
        (clean(text.replace("\r\n", "\n")), label, None) for text, label in rows
    ]


def closes_only(text: str) -> bool:
    """Whether the text ends with a quotation mark and begins without one.

    After a cell that begins with one, both may be one quoted cell.
    """
    return text.strip().endswith('"') and not text.strip().startswith('"')


@QUICK
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.sampled_from("ab é\"',"), min_size=1, max_size=20).filter(
                lambda text: any(map(str.isalpha, text)) and not closes_only(text)
            ),
            st.sampled_from(["good", "bad"]),
        ),
        min_size=1,
        max_size=20,
    )
)
@example(rows=[('""a"', "good")])
@example(rows=[('"a" ', "good")])
@example(rows=[('"a"""', "good")])
def test_a_file_without_quoting_keeps_its_quotation_marks(rows: list[tuple[str, str]], tmp_path: Path) -> None:
    """With tabs between cells and quotation marks anywhere, each line is a row, and none merges with another."""
    content = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
    table_rows = read_back(tmp_path, "t.tsv", content.encode())
    assert [(label, reason) for _, label, reason in table_rows] == [(label, None) for _, label in rows]
    for (text, _, _), (expected, _) in zip(table_rows, rows, strict=True):
        ((as_csv,),) = csv.reader([expected], delimiter="\t", skipinitialspace=True)
        assert text.strip() in {expected.strip(), as_csv.strip()}


@QUICK
@given(
    rows=st.lists(
        st.tuples(
            st.text("abc, ", min_size=1, max_size=20).filter(lambda text: bool(text.strip(", "))),
            st.sampled_from(["good", "bad"]),
        ),
        min_size=8,
        max_size=20,
    ),
    broken=st.sampled_from(['"opened,good', "lost", "one,two,three,four", '"x" y,good', "half\rline,good"]),
    line_index=st.integers(0, 7),
)
def test_a_broken_line_loses_no_other_row(
    rows: list[tuple[str, str]], broken: str, line_index: int, tmp_path: Path
) -> None:
    """In a file with quotation marks, the broken line alone is rejected, with its number."""
    lines = written(
        [(f"row {number}, {text}", label) for number, (text, label) in enumerate(rows)], {"lineterminator": "\n"}
    )
    listed = lines.decode().splitlines()
    content = "\n".join(["text,label", *listed[:line_index], broken, *listed[line_index:]]) + "\n"
    (tmp_path / "t.csv").write_bytes(content.encode())
    items = list(read_table(TableSource(kind="table", path="t.csv"), tmp_path, "text", 2**20))
    assert Counter(item.label for item in items if item.reason is None) == Counter(label for _, label in rows)
    assert [item.origin for item in items if item.reason] == [f"t.csv#line {line_index + 2}"]


@QUICK
@given(content=st.binary(max_size=400), name=st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.parquet"]))
def test_any_bytes_give_rows_reasons_or_one_error(content: bytes, name: str, tmp_path: Path) -> None:
    """Never another exception."""
    for head in (b"", b"text,label\n", b'{"text": "a", "label": "b"}\n'):
        (tmp_path / name).write_bytes(head + content)
        try:
            for item in read_table(TableSource(kind="table", path=name), tmp_path, "text", 2**20):
                item.origin.encode()
                if item.reason is None:
                    str(item.load()).encode()
        except InputError as error:
            assert str(error).strip()

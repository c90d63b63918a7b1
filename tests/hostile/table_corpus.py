"""A corpus of small tables, odd or broken, made by code: for each the rows that are right, or what the error says.

`python tests/hostile/table_corpus.py FOLDER` writes them to a folder.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Expected = tuple[str, str | None, str, str | None]  # text, label, split, reason; the text is "" where a row is rejected
GOOD: list[Expected] = [("a fine day", "good", "train", None), ("a bad day", "bad", "train", None)]
REJECTED = ("", None, "pool")


@dataclass(frozen=True)
class Case:
    """A file, and its rows in order, or a part of the sentence with which it is refused; settings: of the source."""

    name: str
    content: bytes
    rows: Sequence[Expected] = ()
    error: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def csv(name: str, text: str, rows: Sequence[Expected] = (), error: str | None = None, **settings: Any) -> Case:
    """A text file in UTF-8."""
    return Case(name, text.encode("utf-8", "surrogatepass"), rows, error, settings)


def jsonl(name: str, *records: Any, rows: Sequence[Expected] = (), error: str | None = None, **settings: Any) -> Case:
    """A record a line; strings stand as they are."""
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    return csv(f"{name}.jsonl", "\n".join(lines) + "\n", rows, error, **settings)


def parquet(name: str, columns: dict[str, Any], rows: Sequence[Expected], **metadata: Any) -> Case:
    """A Parquet file; metadata: of the Hub's features."""
    table = pa.table(columns)
    if metadata:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": metadata})})
    out = io.BytesIO()
    pq.write_table(table, out)
    return Case(f"{name}.parquet", out.getvalue(), rows)


def labeled(*labels: str | None) -> list[Expected]:
    """Rows t0, t1, … with these labels."""
    return [(f"t{number}", label, "train" if label else "pool", None) for number, label in enumerate(labels)]


def with_labels(name: str, *values: Any, rows: Sequence[Expected] = (), **more: Any) -> Case:
    """JSON lines t0, t1, … with these values in the label column."""
    return jsonl(
        name, *({"text": f"t{number}", "label": value} for number, value in enumerate(values)), rows=rows, **more
    )


TWO = "a fine day,good\na bad day,bad\n"
TABS = "a fine day\tgood\na bad day\tbad\n"
CORPUS: list[Case] = [
    # How a file is written.
    csv("plain.csv", "text,label\n" + TWO, GOOD),
    csv("semicolons.csv", "text;label\n" + TWO.replace(",", ";"), GOOD),
    csv("tabs.csv", "text\tlabel\n" + TABS, GOOD),
    csv("bars.csv", "text|label\n" + TWO.replace(",", "|"), GOOD),
    csv("commas.tsv", "text,label\n" + TWO, GOOD),
    csv("excel_separator.csv", "sep=;\ntext;label\n" + TWO.replace(",", ";"), GOOD),
    csv("windows_lines.csv", "text,label\r\n" + TWO.replace("\n", "\r\n"), GOOD),
    csv("old_mac_lines.csv", "text,label\r" + TWO.replace("\n", "\r"), GOOD),
    csv("blank_lines.csv", "\n\ntext,label\n\n" + TWO.replace("\n", "\n\n"), GOOD),
    csv("no_last_line_end.csv", "text,label\n" + TWO.rstrip(), GOOD),
    csv("byte_order_mark.csv", "\ufefftext,label\n" + TWO, GOOD),
    Case("utf16_with_mark.csv", ("text,label\n" + TWO).encode("utf-16"), GOOD),
    Case("utf16_without_mark.csv", ("text,label\n" + TWO).encode("utf-16-le"), error="may be utf-16"),
    Case("latin1.csv", "text,label\ncafé,good\n".encode("latin-1"), error="byte 0xe9 in line 2"),
    Case(
        "latin1_far_below.csv",
        b"text,label\n" + b"day,good\n" * 5000 + "café,good\n".encode("latin-1"),
        error="byte 0xe9 in line 5002",
    ),
    Case("latin1_set.csv", "text,label\ncafé,good\n".encode("latin-1"), [("café", "good", "train", None)], None, {"encoding": "latin-1"}),
    csv("every_cell_quoted.csv", '"text","label"\n"a fine day","good"\n"a bad day","bad"\n', GOOD),
    csv("trailing_delimiters.csv", "text,label,,\na fine day,good,,\na bad day,bad,,\n", GOOD),
    csv("rows_end_with_delimiter.csv", "text,label\na fine day,good,\na bad day,bad,\n", GOOD),
    csv("index_column.csv", ",text,label\n0,a fine day,good\n1,a bad day,bad\n", GOOD),
    csv("blank_before_quote.csv", 'text, label\n"a fine, day", "good"\n"a bad day", "bad"\n', [("a fine, day", "good", "train", None), GOOD[1]]),
    csv("backslash_quotes.csv", 'text,label\n"he said \\"yes, fine\\"",good\na bad day,bad\n', [('he said "yes, fine"', "good", "train", None), GOOD[1]]),
    csv("decimal_commas.csv", "text;label;price\na fine day;good;1,50\na bad day;bad;2,50\n", GOOD),
    csv("one_column.csv", "text\nwell, well\nso it is\n", [("well, well", None, "pool", None), ("so it is", None, "pool", None)]),
    # Quotation marks.
    csv("line_breaks_in_quotes.csv", 'text,label\n"one\ntwo, three",good\na bad day,bad\n', [("one\ntwo, three", "good", "train", None), GOOD[1]]),
    csv("one_comma_in_each_line.csv", 'text,label\n"hello, you\nbye",good\na bad day,bad\na fine day,good\n', [("hello, you\nbye", "good", "train", None), GOOD[1], GOOD[0]]),
    csv("opened_and_closed_later.tsv", 'text\tlabel\n' + TABS + '"it begins\tgood\n' + TABS + 'it ends"\tbad\n',
        [*GOOD, ('"it begins', "good", "train", None), *GOOD, ('it ends"', "bad", "train", None)]),
    csv("quoted_phrase_first.tsv", 'text\tlabel\n"Great" they said\tgood\na bad day\tbad\n', [('"Great" they said', "good", "train", None), GOOD[1]]),
    csv("inches.tsv", 'text\tlabel\na 20" screen\tgood\na bad day\tbad\n', [('a 20" screen', "good", "train", None), GOOD[1]]),
    csv("never_closed.tsv", 'text\tlabel\n"it begins\tgood\n' + TABS, [('"it begins', "good", "train", None), *GOOD]),
    csv("never_closed_where_quotes_are_used.csv", 'text,label\n"a, b",good\n"it begins,good\n' + TWO + '"c, d",bad\n',
        [("a, b", "good", "train", None), (*REJECTED, "unbalanced_quote"), *GOOD, ("c, d", "bad", "train", None)]),
    csv("stray_quote_within.csv", 'text,label\n"a, b",good\n"he said "no", twice",good\n"c, d",bad\n',
        [("a, b", "good", "train", None), (*REJECTED, "unbalanced_quote"), ("c, d", "bad", "train", None)]),
    csv("broken_over_lines.csv", 'text,label\n"a, b",good\n"one\nsaid "no" here\nthree",good\n"c, d",bad\n',
        [("a, b", "good", "train", None), *[(*REJECTED, "unbalanced_quote")] * 3, ("c, d", "bad", "train", None)]),
    # Rows that are not whole.
    csv("short_and_long_rows.csv", "id,text,label\n1,a fine day,good\n2,lost\n3,a bad, sad day,bad\n4,a bad day,bad\n",
        [GOOD[0], (*REJECTED, "too_few_fields"), (*REJECTED, "too_many_fields"), GOOD[1]]),
    csv("stray_carriage_return.csv", "text,label\na fine day,good\nhalf\rof it,bad\na bad day,bad\n", [GOOD[0], (*REJECTED, "stray_line_break"), GOOD[1]]),
    csv("mostly_malformed.csv", "text,label\n" + "1,a fine day,good\n" * 6, error="6 of 6 rows do not fit the header"),
    csv("no_header.csv", TWO * 2, error="If its first line is a row, add a line"),
    csv("header_alone.csv", "text,label\n", error="has no rows"),
    csv("empty.csv", "", error="is empty"),
    csv("empty_cells.csv", "text,label\n,good\na bad day,\n \u200b,good\n", [("", "good", "train", "empty"), ("a bad day", None, "pool", None), ("", "good", "train", "empty")]),
    # Columns.
    csv("header_in_capitals.csv", "TEXT,Label\n" + TWO, GOOD),
    csv("header_with_blanks.csv", " text , label\n" + TWO, GOOD),
    csv("header_with_invisible_blank.csv", "te\u00adxt,label\u200b\n" + TWO, GOOD),
    csv("two_label_columns.csv", "text,label,label\na,b,c\n", error="2 columns named 'label' (columns 2, 3)"),
    csv("two_spellings_of_label.csv", "text,label,Label\na,b,c\n", error="both match 'label'"),
    csv("no_such_column.csv", "txt,label\na,b\n", error="did you mean 'txt'?"),
    csv("set_column_is_missing.csv", "text,kind\na,b\n", error="no column 'genre'", label="genre"),
    csv("one_of_two_spellings_is_set.csv", "text,kind,Kind\na,b,c\n", [("a", "c", "train", None)], label="Kind"),
    csv("test.csv", "text,label\n" + TWO, [(text, label, "test", None) for text, label, _, _ in GOOD]),
    csv("split_column.csv", "text,label,split\na,x,Train\nb,,train\nc,,test\nd,y,dev\ne,,\nf,z,elsewhere\n",
        [("a", "x", "train", None), ("b", None, "pool", None), ("", None, "test", "no_label"), ("d", "y", "validation", None), ("e", None, "pool", None), ("", None, "pool", "unknown_split")]),
    # Labels.
    with_labels("lists", ["good"], [], ["good", "bad"], "bad", rows=[("t0", "good", "train", None), ("t1", None, "pool", None), ("", None, "train", "several_labels"), ("t3", "bad", "train", None)]),
    csv("lists_as_text.csv", "text,label\nt0,['good']\nt1,[]\nt2,b'bad'\nt3,[old]\n", labeled("good", None, "bad", "[old]")),
    with_labels("structs", {"label": "good", "score": 0.9}, {"name": "bad"}, {"start": 1, "end": 2}, rows=[*labeled("good", "bad"), ("", None, "train", "unreadable_label")]),
    parquet("bytes", {"text": ["t0", "t1", "t2"], "label": [b"good", b"\xff\xfe\xff", None]}, [("t0", "good", "train", None), ("", None, "train", "unreadable_label"), ("t2", None, "pool", None)]),
    parquet("whole_floats", {"text": ["t0", "t1", "t2"], "label": [1.0, float("nan"), 2.5]}, labeled("1", None, "2.5")),
    csv("floats_as_text.csv", "text,label\nt0,1.0\nt1,1\nt2,0.0\nt3,0\n", labeled("1", "1", "0", "0")),
    parquet("class_names", {"text": ["t0", "t1", "t2"], "label": [1, 0, -1]}, labeled("good", "bad", None), features={"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}),
    csv("minus_one_in_test_alone.csv", "text,label,split\nt0,0,train\nt1,1,train\nt2,-1,test\n", [*labeled("0", "1"), ("", None, "test", "no_label")]),
    csv("minus_one_beside_one.csv", "text,label\nt0,-1\nt1,1\n", labeled("-1", "1")),
    csv("minus_one_may_be_either.csv", "text,label\nt0,-1\nt1,1\nt2,0\n", error="no_label"),
    csv("minus_one_is_set.csv", "text,label\nt0,-1\nt1,1\nt2,0\n", labeled(None, "1", "0"), no_label=["-1"]),
    csv("words_for_no_label.csv", "text,label\nt0,nan\nt1,NULL\nt2,none\n", labeled(None, None, "none")),
    csv("invisible_characters.csv", "text,label\nt0,go\u200bod\nt1,good\u00ad\nt2,\ufeffgood\nt3,ｇｏｏｄ\nt4,go\x00od\nt5,good\u00a0\n", labeled(*["good"] * 6)),
    csv("joined_emoji.csv", "text,label\nt0,👩‍🚀\nt1,می‌خواهم\n", labeled("👩‍🚀", "می‌خواهم")),
    # JSON lines.
    jsonl("lone_surrogate", '{"text": "cut \\ud83d", "label": "good"}', {"text": "a bad day", "label": "bad"}, rows=[("", "good", "train", "lone_surrogate"), GOOD[1]]),
    jsonl("lone_surrogate_in_label", '{"text": "a", "label": "\\ud83d"}', {"text": "a bad day", "label": "bad"}, rows=[("", None, "train", "lone_surrogate"), GOOD[1]]),
    jsonl("first_record_without_label", {"text": "a"}, {"text": "a bad day", "label": "bad"}, rows=[("a", None, "pool", None), GOOD[1]]),
    jsonl("first_record_without_text", {"label": "good"}, {"text": "a bad day", "label": "bad"}, rows=[("", "good", "train", "empty"), GOOD[1]]),
    jsonl("lines_that_are_not_objects", "{oops", "[1]", "7", {"text": "a bad day", "label": "bad"}, rows=[*[(*REJECTED, "not_json")] * 3, GOOD[1]]),
    jsonl("key_twice", '{"text": "a", "label": "x", "label": "y"}', {"text": "a bad day", "label": "bad"}, rows=[(*REJECTED, "duplicate_key"), GOOD[1]]),
    jsonl("deep_nesting", '{"text": ' + "[" * 100_000, {"text": "a bad day", "label": "bad"}, rows=[(*REJECTED, "not_json"), GOOD[1]]),
    csv("array.jsonl", '[\n{"text": "a fine day", "label": "good"},\n{"text": "a bad day", "label": "bad"}\n]\n', GOOD),
    csv("broken_array.jsonl", '[\n{"text": "a fine day"', error="is not a JSON array"),
    with_labels("nested_text", "a", rows=labeled("a")),
    jsonl("text_that_is_a_list", {"text": ["a"], "label": "x"}, {"text": 5, "label": "x"}, rows=[("", "x", "train", "not_a_text"), ("5", "x", "train", None)]),
    # Parquet.
    Case("cut.parquet", b"PAR1 and no more", error="cannot be read"),
    Case("empty.parquet", b"", error="cannot be read"),
]  # fmt: skip


def write_corpus(folder: Path) -> None:
    """Each case as a file of its own."""
    for case in CORPUS:
        (folder / case.name).write_bytes(case.content)


if __name__ == "__main__":
    write_corpus(Path(sys.argv[1]))

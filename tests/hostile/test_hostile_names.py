"""Hostile names of classes, ids and files have no effect in a spreadsheet, a terminal, or Markdown."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from in_process import seedling

from seedling.dataset.spreadsheet import original_cell, spreadsheet_cell
from seedling.files.ignored_files import write_ignored
from seedling.formats import PredictionFormat
from seedling.models.predictor import Answer
from seedling.prediction import _to_text
from seedling.pseudo_label.queue import write_queue
from seedling.pseudo_label.teacher import PseudoLabels
from seedling.report.data_page import _write_csv
from seedling.report.markdown_text import markdown_text
from seedling.terminal.console import PrintableConsole
from seedling.terminal.printable import make_printable, printable

FORMULAS = [
    "=cmd|'/C calc'!A0",
    "@SUM(1)",
    "+1+1",
    "-2+3",
    '=HYPERLINK("http://evil","x")',
    "\t=1+1",
    "\r=1",
    " =1+1",
    "＝1+1",
]


def first_characters(content: str) -> set[str]:
    """The first character of every cell of a CSV file."""
    return {cell.strip()[:1] for line in csv.reader(io.StringIO(content, newline="")) for cell in line}


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_cell_that_is_a_formula_becomes_text(formula: str) -> None:
    """The conversion can be reverted."""
    escaped = formula.replace("\r", r"\r")
    assert spreadsheet_cell(formula) == "'" + escaped
    assert original_cell(spreadsheet_cell(formula.strip())) == formula.strip()


@pytest.mark.parametrize("value", ["-5", "+3.2", "-1e-5", "good", "a=b", "", None, 7, "'tis", "-12,5"])
def test_numbers_and_other_texts_are_unchanged(value: object) -> None:
    """A negative number is not a formula."""
    assert spreadsheet_cell(value) == value
    assert original_cell(str(value)) == str(value)


def test_no_csv_file_has_a_cell_that_begins_with_a_formula(tmp_path: Path) -> None:
    """Label issues, duplicates and quality, the review queue, ignored files, and predictions."""
    _write_csv(tmp_path / "quality.csv", pd.DataFrame({"origin": FORMULAS, "original_label": FORMULAS[::-1], "p": 0.5}))
    rows = pd.DataFrame({"id": ["1", "2"], "origin": [FORMULAS[0], FORMULAS[1]]})
    labels = PseudoLabels.__new__(PseudoLabels)
    object.__setattr__(labels, "probabilities", np.array([[[0.5, 0.5], [0.4, 0.6]]]))
    object.__setattr__(labels, "density", np.ones(2))
    object.__setattr__(labels, "graph", None)
    write_queue(tmp_path / "queue.csv", rows, labels, [FORMULAS[2], FORMULAS[3]], 2)
    write_ignored(tmp_path / "ignored.csv", [(name.replace("/", ""), "hidden") for name in FORMULAS])
    out = io.StringIO()
    write = _to_text(
        PredictionFormat.csv, out, lambda answer: {"source": answer.source, "predicted": answer.predicted}, []
    )
    write(Answer(FORMULAS[0], FORMULAS[4], 0.5, False, None, None))
    contents = [path.read_text(encoding="utf-8") for path in sorted(tmp_path.glob("*.csv"))]
    assert len(contents) == 3
    for content in [*contents, out.getvalue()]:
        assert "calc" in content
        assert not first_characters(content) & set("=+-@＝")


ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj.exe\u2028\r"


def test_control_characters_are_escaped_on_a_terminal() -> None:
    """Escape sequences, C1 controls and direction marks are escaped; letters, emoji and line ends are unchanged."""
    escaped = printable(ESCAPE)
    assert escaped.isprintable()
    assert escaped.startswith(r"\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj.exe\u2028\r")
    assert printable("Käse 猫 👩\u200d🚀") == "Käse 猫 👩\u200d🚀"
    assert printable("one\ntwo", keep="\n") == "one\ntwo"


def test_the_console_escapes_names_and_ignores_markup() -> None:
    """In a sentence and in a table; `[old]` and `:smile:` are unchanged, and the console's own styles apply."""
    from rich.table import Table

    out = io.StringIO()
    console = PrintableConsole(file=out, force_terminal=True, width=200, color_system="standard")
    console.print(f"the class {ESCAPE} of [old] :smile: [red]x[/red]", style="green", highlight=False)
    table = Table(box=None)
    table.add_column("name")
    table.add_row(f"[bold]{ESCAPE}")
    console.print(table)
    output = out.getvalue()
    assert "[old] :smile: [red]x[/red]" in output
    assert "[bold]" in output
    assert "\x1b]0" not in output
    assert "\x1b[2J" not in output
    assert "\x1b[32m" in output, "its own style is gone"


def test_log_messages_are_printable() -> None:
    """For example those of a run in Prefect's log."""
    record = logging.LogRecord("x", logging.INFO, "", 0, "the class %s\nand more", (ESCAPE,), None)
    assert make_printable(record)
    assert "\x1b" not in record.getMessage()
    assert "\nand more" in record.getMessage()


def test_an_error_of_the_command_line_is_printable(tmp_path: Path) -> None:
    """For a missing path with escape sequences: exit code 2 and one sentence."""
    done = seedling("init", tmp_path / "w", "--texts", f"{tmp_path}/[old]\x1b[2Jx.csv")
    assert done.returncode == 2
    assert r"[old]\x1b[2Jx.csv does not exist" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    "name",
    [
        "[x](javascript:alert(3))",
        "![x](https://evil/track.png)",
        "<img src=x onerror=alert(1)>",
        "https://evil.example/a",
        "www.evil.example",
        "a | b",
        "`code`",
        "# heading",
        "1. item",
        "- item",
        "*bold* _it_",
        "two\n\n# lines",
        "&lt;script&gt;",
        "[ref]: https://evil",
    ],
)
def test_markdown_shows_a_name_as_text(name: str) -> None:
    """No character with a meaning in Markdown is left unescaped, and the displayed name is unchanged."""
    import html
    import re

    escaped = markdown_text(name)
    assert html.unescape(escaped) == " ".join(name.split())
    bare = re.sub(r"&#\d+;", "", escaped)
    assert not set(bare) & set("[]<>|`*!")
    assert "://" not in bare
    assert not bare.startswith(("#", "- ", "1."))
    assert "www." not in bare

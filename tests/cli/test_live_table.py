"""The lines and the table that `seedling run` shows."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from seedling.cli.live_table import LiveTable
from seedling.pipeline import stages
from seedling.progress import announce
from seedling.records.gate import Check
from seedling.records.summaries import StageSummary
from seedling.versioning.ledger import Outcome


def console(*, terminal: bool = False) -> Console:
    """A console that keeps what it prints."""
    return Console(file=io.StringIO(), width=200, force_terminal=terminal, color_system=None)


def printed(console: Console) -> list[str]:
    """The lines on the console."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def finish_all(table: LiveTable, first_skipped: int) -> None:
    """Finishes all stages, of which the rounds from `first_skipped` on are skipped."""
    for name in stages():
        number = int(name.partition("@")[2] or -1)
        is_skipped = number >= first_skipped
        note = f"skipped: the loop stopped after round {first_skipped - 1}" if is_skipped else "N"
        table.finish(Outcome(name, "done", 0.1, StageSummary(note=note, is_skipped=is_skipped)))


@pytest.mark.parametrize("first_skipped", [1, 2, 3])
def test_skipped_rounds_are_one_line_without_a_terminal(first_skipped: int) -> None:
    """All other stages have a line each."""
    screen = console()
    finish_all(LiveTable(screen), first_skipped)
    lines = printed(screen)
    about_rounds = [line for line in lines if "skipped" in line]
    last = "round 3 skipped" if first_skipped == 3 else f"rounds {first_skipped} to 3 skipped"
    assert about_rounds == [f"- the loop stopped after round {first_skipped - 1}; {last}"]
    assert len(lines) == len(stages()) - 2 * (4 - first_skipped) + 1


def test_skipped_rounds_are_one_row_of_the_table() -> None:
    """On a terminal."""
    screen = console(terminal=True)
    table = LiveTable(screen)
    finish_all(table, 2)
    screen.print(table.table())
    lines = printed(screen)
    assert len([line for line in lines if "skipped" in line]) == 1
    assert not [line for line in lines if "train@2" in line or "pseudo_label@3" in line]
    assert [line for line in lines if "train@1" in line]


def test_one_stage_alone_says_that_it_was_skipped() -> None:
    """`seedling stage pseudo_label@2` prints a line for it."""
    screen = console()
    table = LiveTable(screen, collapse_skipped=False)
    table.finish(
        Outcome("pseudo_label@2", "done", 0.1, StageSummary(note="skipped: no further round", is_skipped=True))
    )
    (line,) = printed(screen)
    assert "pseudo_label@2" in line and "skipped" in line


def test_only_the_stages_that_run_are_in_the_table() -> None:
    """A review collects rows, and runs no other stage."""
    assert LiveTable(console()).table().row_count == len(stages())
    assert LiveTable(console(), shown_stages=["scrape"]).table().row_count == 1


def test_a_result_is_printed_before_its_stage_ends() -> None:
    """The accuracy is printed while the robustness tests run."""
    screen = console()
    table = LiveTable(screen)
    with table.watch("evaluate") as progress:
        announce(progress, "accuracy 0.857 [0.810, 0.895] on 224 test rows")
        assert printed(screen) == ["accuracy 0.857 [0.810, 0.895] on 224 test rows"]


def test_a_gate_warning_is_a_sentence() -> None:
    """With the observed value and the limit."""
    screen = console()
    check = Check(
        expectation="expect_column_mean_to_be_between",
        arguments={"column": "correct", "min_value": 0.5},
        severity="warning",
        observed="0.486667",
        passed=False,
    )
    LiveTable(screen).finish(Outcome("evaluate", "done", 1.0, StageSummary(note="N", checks=[check])))
    assert "gate warning: share of right predictions 0.487, gates.yaml expects at least 0.5" in printed(screen)[0]

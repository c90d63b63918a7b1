"""`seedling review --terminal` on a real pseudo-terminal: keys in, log lines out; kills, escape sequences, a full disk."""

from __future__ import annotations

import csv
import io
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from seedling.config.params import set_value
from seedling.errors import InputError
from seedling.init.create import make_workspace
from seedling.review.log import read_file
from seedling.review.records import Answer, Undo
from seedling.review.session import ReviewSession
from seedling.review.terminal import last_answer, last_undone, review_in_terminal
from seedling.review.terminal_keys import LEAVE, Bindings, Key, TerminalKeys, key_of_character
from seedling.review.terminal_screen import ReviewScreen, matches
from seedling.terminal.console import PrintableConsole
from seedling.versioning.ledger import Ledger

SECONDS = 60.0
CODE = (
    "import sys; from pathlib import Path; from seedling.review.session import ReviewSession; "
    "from seedling.review.terminal import review_in_terminal; "
    "session, row_id = ReviewSession.of(Path(sys.argv[1])), sys.argv[3] or None; "
    "print('answers:', review_in_terminal(session, 'anna', mode=sys.argv[2], row_id=row_id))"
)
TITLE, CLEAR, REVERSED = "\x1b]0;taken over\x07", "\x1b[2J\x1b[H", "\u202e"
DANGEROUS = f"the apple number 61 {TITLE}{CLEAR}{REVERSED} end of the danger"
FRUITS = ("apple", "pear", "quince")


@pytest.fixture(scope="session")
def texts_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of 60 texts of three classes, collected and checked, with a dangerous one. Only to be copied."""
    folder = tmp_path_factory.mktemp("terminal")
    with (folder / "fruits.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(60):
            fruit = FRUITS[number % 3]
            text = f"the {fruit} number {number} is {'sweet' if number % 2 else 'sour'} and ripe in week {number * 7}"
            writer.writerow([text, fruit])
        writer.writerow([DANGEROUS, "apple"])
    workspace = make_workspace(folder / "fruits", folder / "fruits.csv", "text", encoder="none")
    for key in ("random_share", "gold_share", "repeat_share"):
        set_value(workspace, ["review", key], 0)
    ledger = Ledger(workspace)
    for stage in ("scrape", "validate"):
        ledger.run(stage)
    return workspace


@pytest.fixture
def texts(texts_once: Path, tmp_path: Path) -> Path:
    """A copy of the workspace of texts."""
    return Path(shutil.copytree(texts_once, tmp_path / "fruits", symlinks=True))


class Terminal:
    """A review in a pseudo-terminal of 100 columns and 40 lines."""

    def __init__(self, workspace: Path, mode: str = "verify", row_id: str = "") -> None:
        self.workspace = workspace
        self.process_id, self.descriptor = pty.fork()
        if self.process_id == 0:  # the child
            environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
            os.execve(sys.executable, [sys.executable, "-c", CODE, str(workspace), mode, row_id], environment)  # noqa: S606
        self.output = ""
        self._start = 0

    def _read(self, seconds: float) -> None:
        if select.select([self.descriptor], [], [], seconds)[0]:
            try:
                self.output += os.read(self.descriptor, 65_536).decode(errors="replace")
            except OSError:  # the child has ended
                time.sleep(seconds)

    @property
    def screen(self) -> str:
        """What was written since the last key."""
        return self.output[self._start :]

    def wait_for(self, text: str) -> str:
        """What was written since the last key, as soon as it has the text."""
        until = time.monotonic() + SECONDS
        while text not in self.screen:
            assert time.monotonic() < until, f"{text!r} is not in {self.screen!r}"
            self._read(0.1)
        quiet = time.monotonic() + 0.3
        while time.monotonic() < quiet:  # keys before the end of a screen are dropped
            self._read(0.05)
        return self.screen

    def press(self, keys: str, expected: str) -> str:
        """Press keys, and wait for a text on the screen."""
        self._start = len(self.output)
        os.write(self.descriptor, keys.encode())
        return self.wait_for(expected)

    def kill(self) -> None:
        """End the review with 9."""
        os.kill(self.process_id, signal.SIGKILL)
        os.waitpid(self.process_id, 0)
        os.close(self.descriptor)

    def lines(self) -> list[Answer | Undo]:
        """The lines of the log on the disk."""
        lines = read_file(self.workspace / "reviews/anna.jsonl").lines
        return [line for line in lines if isinstance(line, Answer | Undo)]


@pytest.fixture
def open_terminal(texts: Path) -> Iterator[Callable[..., Terminal]]:
    """Opens reviews of the workspace of texts; they are ended after the test."""
    terminals: list[Terminal] = []

    def start(mode: str = "verify", row_id: str = "") -> Terminal:
        terminals.append(Terminal(texts, mode, row_id))
        return terminals[-1]

    yield start
    for terminal in terminals:
        try:
            terminal.kill()
        except (ProcessLookupError, ChildProcessError, OSError):
            continue


def text_on(screen: str) -> str:
    """The row's text on the screen."""
    return screen.rpartition("─")[0].rpartition("─\x1b[0m\r\n")[2].partition("\r\n")[0]


@pytest.mark.slow
def test_one_key_is_one_answer_on_the_disk(open_terminal: Callable[..., Terminal]) -> None:
    """Accept by a letter and by an arrow, another class by its digit, bad data; each line has the question and the times."""
    terminal = open_terminal()
    screen = terminal.wait_for("Is this '")
    label = screen.split("Is this '")[1].split("'")[0]
    assert f"the {label} number" in text_on(screen)
    screen = terminal.press("a", "Is this '")
    assert f"label: {label}" in screen
    terminal.press("\x1b[C", "2 answered now")
    terminal.press("2", "3 answered now")
    terminal.press("b", "4 answered now")
    lines = terminal.lines()
    assert [line.answer for line in lines if isinstance(line, Answer)] == ["label", "label", "label", "bad"]
    first, second, third, _ = (line for line in lines if isinstance(line, Answer))
    assert (first.label, first.asked_label, first.previous_label) == (label, label, label)
    assert second.label == second.asked_label
    assert third.label == "pear"
    assert first.question == "verify" and first.reviewer == "anna"
    assert 0 < first.milliseconds <= first.answered_at - first.shown_at + 1
    terminal.press("q", "answers: 4")


@pytest.mark.slow
def test_a_killed_review_returns_to_the_same_row(open_terminal: Callable[..., Terminal]) -> None:
    """Three times killed with 9 in the middle of a row: each answer is there once, and the row is the same."""
    terminal = open_terminal()
    row = text_on(terminal.wait_for("Is this '"))
    for number in range(3):
        terminal.kill()
        terminal = open_terminal()
        assert text_on(terminal.wait_for("Is this '")) == row
        row = text_on(terminal.press("a", "1 answered now"))
        assert len(terminal.lines()) == number + 1
    answers = [line for line in terminal.lines() if isinstance(line, Answer)]
    assert len({answer.row_id for answer in answers}) == len({answer.id for answer in answers}) == 3


@pytest.mark.slow
def test_undo_reaches_answers_of_an_earlier_session(open_terminal: Callable[..., Terminal]) -> None:
    """Two answers, of which one is undone and restored, a restart, undo twice, redo once: the log has what counts."""
    terminal = open_terminal()
    first = text_on(terminal.wait_for("Is this '"))
    second = text_on(terminal.press("a", "1 answered now"))
    terminal.press("x", "2 answered now")
    terminal.press("z", "1 answered now")
    terminal.press("y", "2 answered now")
    terminal.press("q", "answers: 2")
    terminal = open_terminal()
    terminal.wait_for("Is this '")
    assert text_on(terminal.press("z", "The answer is undone")) == second
    assert text_on(terminal.press("z", "The answer is undone")) == first
    terminal.press("z", "Nothing is left to undo.")
    terminal.press("y", "The answer is restored")
    terminal.wait_for("0 answered now")  # they were answered in the session before
    kinds = [line.kind for line in terminal.lines()]
    assert kinds == ["answer", "answer", "undo", "redo", "undo", "undo", "redo"]


@pytest.mark.slow
def test_escape_sequences_of_a_text_do_not_reach_the_terminal(
    texts: Path, open_terminal: Callable[..., Terminal]
) -> None:
    """Collecting removes control characters; a reversed direction is shown as its code, and a note has no arrow keys."""
    tables = [pq.read_table(path).to_pylist() for path in (texts / "generations/scrape").glob("part-*.parquet")]
    (row_id,) = [row["id"] for table in tables for row in table if "end of the danger" in (row["text"] or "")]
    terminal = open_terminal("label", row_id)
    terminal.wait_for("end of the danger")
    assert r"\u202e end of the danger" in terminal.output
    assert TITLE not in terminal.output and REVERSED not in terminal.output
    assert terminal.output.count(CLEAR) == 1  # the program's own
    terminal.press("f", "Note: ")
    terminal.press("\x1b[A wrong\r", "Flagged.")
    assert [line.note for line in terminal.lines() if isinstance(line, Answer)] == [" wrong"]
    assert [line.answer for line in terminal.lines() if isinstance(line, Answer)] == ["flag"]


@pytest.mark.slow
def test_pasted_text_and_keys_pressed_too_early_answer_nothing(open_terminal: Callable[..., Terminal]) -> None:
    """Twenty letters that are pasted, and five that arrive while an answer is stored: one answer, of the first of them."""
    terminal = open_terminal()
    terminal.wait_for("Is this '")
    terminal.press("\x1b[200~aaaaaaaaaaaaaaaaaaaa\x1b[201~?", "leave; the next start returns to this row")
    assert terminal.lines() == []
    terminal.press("aaaaa", "1 answered now")
    assert len(terminal.lines()) == 1


@pytest.mark.slow
def test_help_panel_search_and_modes_are_one_key_each(open_terminal: Callable[..., Terminal]) -> None:
    """A class is found by a part of its name; Escape changes nothing; the panel says what is known."""
    terminal = open_terminal()
    terminal.wait_for("Is this '")
    help_screen = terminal.press("?", "nearest labeled rows")
    assert "none of these classes" in help_screen and "/ or t" in help_screen
    assert "0 answers" in terminal.press("i", "enough: not yet")
    terminal.press("m", "Which class is this?")
    terminal.press("/", "Class: ")
    assert "quince" in terminal.press("UI", "(enter: quince)")
    terminal.press("\x1b", "No class is chosen.")
    terminal.press("/", "Class: ")
    terminal.press("quin\r", "1 answered now")
    (line,) = terminal.lines()
    assert isinstance(line, Answer) and (line.question, line.label) == ("label", "quince")
    assert "does nothing here" in terminal.press("9", "press ? for the keys")
    terminal.press("o", "The next rows come in the order label_issues.")


@pytest.mark.slow
def test_an_answer_that_the_disk_refuses_is_kept_until_it_can_be_saved(
    texts: Path, open_terminal: Callable[..., Terminal]
) -> None:
    """reviews/ is a file: the answer is refused, and is saved by the next key once the folder is there."""
    terminal = open_terminal()
    terminal.wait_for("Is this '")
    shutil.rmtree(texts / "reviews", ignore_errors=True)
    (texts / "reviews").write_text("in the way")
    terminal.press("a", "The answer is not saved")
    terminal.press(" ", "The answer is not saved")
    (texts / "reviews").unlink()
    terminal.press(" ", "1 answered now")
    assert len(terminal.lines()) == 1


@pytest.mark.slow
def test_lines_answer_where_standard_input_is_no_terminal(texts: Path) -> None:
    """A key or the name of a class per line, a note on a line of its own, and no control sequences in the output."""
    command = [sys.executable, "-c", CODE, str(texts), "label", ""]
    script = "quince\n2\nf\nlook again\nb\nz\nq\na line that is not read\n"
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    lines = read_file(texts / "reviews/anna.jsonl").lines
    answers = [(line.answer, line.label, line.note) for line in lines if isinstance(line, Answer)]
    assert answers == [
        ("label", "quince", None),
        ("label", "pear", None),
        ("flag", None, "look again"),
        ("bad", None, None),
    ]
    assert [line.kind for line in lines][-1] == "undo"
    assert "answers: 2" in done.stdout  # one was undone


@pytest.mark.slow
def test_images_are_reviewed_in_the_browser(scraped: Path) -> None:
    """The error names the command to use."""
    session = ReviewSession.of(scraped)
    with pytest.raises(InputError, match="this workspace has images: use `seedling review`"):
        review_in_terminal(session, "anna")


@pytest.mark.parametrize(
    ("typed", "codes"),
    [
        (b"aA1 \r\x7f?", ["KeyA", "KeyA", "Digit1", "Space", "Enter", "Backspace", "?"]),
        (b"\x1b[C\x1bOD\x1b[3~\x1bOQ", ["ArrowRight", "ArrowLeft", "Delete", "F2"]),
        ("é".encode() + "日".encode(), ["é", "日"]),
        (b"\x1b[200~abc\x1b[201~b", ["KeyB"]),
        (b"\x1b[1;5Ca", ["KeyA"]),  # Control with an arrow is none of the keys
        (b"\x1b[<0;5;5Ma", ["KeyA"]),  # a click
        (b"\x04", ["EndOfInput"]),
    ],
)
def test_bytes_of_a_terminal_are_keys(typed: bytes, codes: list[str]) -> None:
    """Escape sequences are one key; pasted text and unknown sequences are none."""
    controller, terminal = os.openpty()
    with TerminalKeys(terminal) as keys:
        os.write(controller, typed)
        assert [keys.read().code for _ in codes] == codes
        os.write(controller, b"\x1b")
        assert keys.read() == Key("Escape")
        os.write(controller, b"ab")
        time.sleep(0.1)
        keys.discard()
        os.write(controller, b"c")
        assert keys.read() == key_of_character("c")
    os.close(controller)
    os.close(terminal)


def test_the_terminals_settings_are_restored() -> None:
    """Also after an error in the middle of a review."""
    controller, terminal = os.openpty()
    before = termios.tcgetattr(terminal)
    with pytest.raises(RuntimeError), TerminalKeys(terminal):
        assert termios.tcgetattr(terminal) != before
        raise RuntimeError
    assert termios.tcgetattr(terminal) == before
    os.close(controller)
    os.close(terminal)


def test_q_leaves_unless_it_is_remapped() -> None:
    """Then it does what params say, and Ctrl-D leaves."""
    bindings = Bindings.of({})
    assert bindings.actions[LEAVE] == "leave" and LEAVE not in bindings.class_keys
    assert bindings.class_keys[:3] == ["Digit1", "Digit2", "Digit3"]
    remapped = Bindings.of({"skip": ["KeyQ"]})
    assert remapped.actions[LEAVE] == "skip" and remapped.actions["EndOfInput"] == "leave"


def test_a_class_is_found_by_a_part_of_its_name() -> None:
    """Equal names first, then beginnings, then the others in their order."""
    labels = ["pineapple", "apple pie", "Apple", "pear"]
    assert matches(labels, "apple") == ["Apple", "apple pie", "pineapple"]
    assert matches(labels, "kiwi") == []


def entry(kind: str, number: int, *answers: int, batch: int | None = None) -> Answer | Undo:
    """A line of the log; ids are numbers."""
    name = f"{number:032x}"
    if kind != "answer":
        ids = tuple(f"{answer:032x}" for answer in answers)
        return Undo.model_validate({"kind": kind, "id": name, "reviewer": "anna", "answer_ids": ids})
    values = {"id": name, "reviewer": "anna", "row_id": name, "question": "label", "answer": "bad"}
    return Answer.model_validate({**values, "batch": None if batch is None else f"{batch:032x}"})


def test_undo_and_redo_follow_the_log() -> None:
    """Undo takes the last answer or the whole last grid; an answer ends what can be restored."""
    lines = [entry("answer", 1), entry("answer", 2, batch=9), entry("answer", 3, batch=9)]
    assert [int(name, 16) for name in last_answer(lines)] == [2, 3]
    assert last_undone(lines) == []
    lines += [entry("undo", 10, 2, 3)]
    assert [int(name, 16) for name in last_answer(lines)] == [1]
    lines += [entry("undo", 11, 1)]
    assert last_answer(lines) == []
    assert [int(name, 16) for name in last_undone(lines)] == [1]
    lines += [entry("redo", 12, 1)]
    assert [int(name, 16) for name in last_undone(lines)] == [2, 3]
    lines += [entry("answer", 4)]
    assert last_undone(lines) == []


def screen_of(item: dict[str, Any], labels: list[str], *, shows_all: bool = False) -> str:
    """What a terminal of 80 columns and 24 lines is sent for an item."""
    file = io.StringIO()
    console = PrintableConsole(file=file, force_terminal=True, width=80, height=24, color_system=None)
    ReviewScreen(console, Bindings.of({}), is_terminal=True).show_item(item, labels, "", "", shows_all=shows_all)
    return file.getvalue()


def item_of(text: str | None, **values: Any) -> dict[str, Any]:
    """An item as the queue gives it to the page."""
    fields = {"text": text, "missing": text is None, "text_cut": False, "question": "label", "asked_label": None}
    parts: dict[str, Any] = {"suggestions": [], "words": [], "origin": "", "state": "predicted", "previous_label": None}
    return {**fields, **parts, **values}


def test_nothing_of_a_row_controls_the_terminal() -> None:
    """Text, classes, words, origin and labels with escape sequences, carriage returns and bells: each is visible."""
    attack = "\x1b[31mred\r\x07\x9b2J\u202e"
    parts = {"origin": attack, "previous_label": attack, "asked_label": attack, "question": "verify"}
    item = item_of(
        attack,
        **parts,
        suggestions=[{"label": attack, "probability": 0.9}],
        words=[{"word": attack, "weight": 1.0}],
    )
    screen = screen_of(item, [attack])
    assert screen.count(r"\x1b[31mred\r\x07\x9b2J\u202e") == 7
    for character in ("\x1b[31m", "\r", "\x07", "\x9b", "\u202e"):
        assert character not in screen


def test_a_long_text_is_cut_to_the_screen_and_shown_whole_by_a_key() -> None:
    """1,000 words on 24 lines: ten lines and how many follow; then all of them; a text that is gone says so."""
    item = item_of(" ".join(f"word{number}" for number in range(1_000)))
    screen = screen_of(item, ["cat", "dog"])
    assert len(screen.splitlines()) < 24 and "word999" not in screen
    assert "more lines, e shows them" in screen
    assert "word999" in screen_of(item, ["cat", "dog"], shows_all=True)
    assert "The text of this row is gone" in screen_of(item_of(None), ["cat", "dog"])


def test_a_thousand_classes_with_long_names_fit_on_the_screen() -> None:
    """Those with a key are shown, cut to 40 characters; the others are found by name."""
    labels = [f"{number} {'x' * 200}" for number in range(1_000)]
    screen = screen_of(item_of("text"), labels)
    count = len(Bindings.of({}).class_keys)
    assert f"finds {1_000 - count} more" in screen.replace("\n", " ")
    assert "x" * 40 not in screen

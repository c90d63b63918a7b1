"""`seedling review --terminal`: reviews texts in a terminal, one key per answer.

Texts and labels are untrusted: control characters and escape sequences are made visible, never sent to the terminal.
Keys that were pressed before a row was on the screen do not answer it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seedling.errors import InputError
from seedling.review.leases import Lease
from seedling.review.log import Line
from seedling.review.orders import ORDERS
from seedling.review.page_answers import AnswerFromPage
from seedling.review.records import MAX_NOTE_CHARACTERS, Answer, AnswerKind, Question, Undo
from seedling.review.session import ReviewSession
from seedling.review.terminal_keys import (
    END_OF_INPUT,
    Bindings,
    Key,
    KeySource,
    LineKeys,
    TerminalKeys,
    terminal_descriptor,
)
from seedling.review.terminal_screen import ReviewScreen, matches
from seedling.terminal.console import PrintableConsole

MODES: tuple[Question, ...] = ("verify", "label")


def review_in_terminal(
    session: ReviewSession, reviewer: str, *, mode: Question = "verify", row_id: str | None = None
) -> int:
    """Ask rows until the reviewer leaves, and return the number of answers. row_id: of the row to begin with.

    Raises InputError if the workspace has images.
    """
    if session.queue.rows.modality != "text":
        raise InputError(
            "`seedling review --terminal` shows texts, and this workspace has images: use `seedling review`, which "
            "opens a page in the browser."
        )
    descriptor, console = terminal_descriptor(), PrintableConsole(highlight=False)
    session.start()
    try:
        if descriptor is None or not console.is_terminal:
            return TerminalReview(session, reviewer, LineKeys(), console, mode).run(row_id)
        with TerminalKeys(descriptor) as keys:
            return TerminalReview(session, reviewer, keys, console, mode).run(row_id)
    finally:
        session.close()


ANSWERS_WITHOUT_CLASS: dict[str, AnswerKind] = {
    "skip": "skip",
    "unsure": "unsure",
    "none_of_these": "none_of_these",
    "bad": "bad",
}


@dataclass
class TerminalReview:
    """A review in a terminal. mode: `verify` or `label`."""

    session: ReviewSession
    reviewer: str
    keys: KeySource
    console: PrintableConsole
    mode: Question = "verify"
    _answer_ids: set[str] = field(default_factory=set)
    _undone_ids: set[str] = field(default_factory=set)
    _message: str = ""
    _shown_at: float = 0.0
    _shows_all: bool = False
    _row: str | None = None
    _bindings: Bindings = field(init=False)

    def __post_init__(self) -> None:
        self._bindings = Bindings.of(self.session.params.review.keys)
        self._screen = ReviewScreen(self.console, self._bindings, is_terminal=self.keys.is_terminal)

    @property
    def answers(self) -> int:
        """The number of answers since the start, without undone ones."""
        return len(self._answer_ids)

    def run(self, row_id: str | None = None) -> int:
        """Ask rows until the reviewer leaves or all rows are answered. Returns the number of answers."""
        self._row = row_id
        while True:
            lease = self._next()
            if lease is None:
                self._screen.say("No row is left to review.")
                return self.answers
            if not self._ask(lease):
                return self.answers

    def _next(self) -> Lease | None:
        """The row to show: the one that a link or an undo names, else the next one of the queue."""
        queue, row_id = self.session.queue, self._row
        self._row = None
        if row_id is not None:
            lease = queue.lease_row(self.reviewer, row_id, self.mode)
            if lease is not None:
                return lease
            self._message = f"There is no row {row_id}."
        self.session.refresh_if_changed()
        leases = queue.next_leases(self.reviewer, self.mode, self.session.order, 1)
        return leases[0] if leases else None

    def _ask(self, lease: Lease) -> bool:
        """Show a row and handle keys until the next row is due. Returns False if the reviewer leaves."""
        item = self.session.items().item(lease)
        labels = self._labels(item)
        self._shows_all = False
        self._show(lease, item, labels)
        self._shown_at = time.time()
        while True:
            key = self.keys.read()
            action = self._action_of(key, labels)
            if action == "leave":
                return False
            is_done = self._do(action, key, lease, item, labels)
            if is_done:
                return True

    def _show(self, lease: Lease, item: Mapping[str, Any], labels: Sequence[str]) -> None:
        progress = f"{self.mode} · {self.session.order} · {self.answers:,} answered now, "
        progress += f"{self.session.queue.remaining:,} left · {self.reviewer}"
        self._screen.show_item(item, labels, progress, self._message, shows_all=self._shows_all)
        self._message = ""
        self.keys.discard()

    def _labels(self, item: Mapping[str, Any]) -> list[str]:
        """The classes in the order of their keys: the model's guesses first."""
        guesses = [suggestion["label"] for suggestion in item["suggestions"]]
        return [*guesses, *(label for label in self.session.queue.rows.classes if label not in guesses)]

    def _action_of(self, key: Key, labels: Sequence[str]) -> str | None:
        if key.code == "Text":  # a line that names a class
            return "label" if key.text in labels else None
        for name in (key.code, key.text):
            if name in self._bindings.actions:
                return self._bindings.actions[name]
        is_class = key.code in self._bindings.class_keys[: len(labels)]
        return "label" if is_class else None

    def _do(self, action: str | None, key: Key, lease: Lease, item: Mapping[str, Any], labels: Sequence[str]) -> bool:
        """Do what a key says. Returns whether the next row is due."""
        if action == "label":
            label = key.text if key.code == "Text" else labels[self._bindings.class_keys.index(key.code)]
            return self._save(lease, "label", label=label)
        if action == "accept":
            return self._accept(lease, item)
        if action == "reject" and lease.asked_label is not None:
            return self._save(lease, "reject")
        if kind := ANSWERS_WITHOUT_CLASS.get(action or ""):
            return self._save(lease, kind)
        if action is not None and action in {"undo", "redo"}:
            return self._take_back(action)
        if action == "search":
            chosen_label = self._search(labels)
            return chosen_label is not None and self._save(lease, "label", label=chosen_label)
        if action == "mode":
            self.mode = MODES[(MODES.index(self.mode) + 1) % len(MODES)]
            return True
        if action == "order":
            return self._change_order()
        self._show_more(action, key, lease, item, labels)
        return False

    def _accept(self, lease: Lease, item: Mapping[str, Any]) -> bool:
        """Accept the class that is asked about, or the likeliest suggestion that is shown."""
        suggestions = item["suggestions"]
        label = lease.asked_label or (suggestions[0]["label"] if suggestions else None)
        if label is None:
            self._screen.say("Nothing is suggested for this row: choose a class.")
            return False
        return self._save(lease, "label", label=label)

    def _show_more(
        self, action: str | None, key: Key, lease: Lease, item: Mapping[str, Any], labels: Sequence[str]
    ) -> None:
        if action == "help":
            self._screen.show_help(labels)
        elif action == "panel":
            self._screen.show_panel(self.session.panel(self.reviewer))
        elif action == "flicker":
            self._screen.show_neighbors(item["neighbors"])
        elif action == "flag":
            self._flag(lease)
        elif action == "zoom":
            self._shows_all = not self._shows_all
            self._show(lease, item, labels)
        elif action in {None, "reject"}:
            name = key.text or key.code
            self._screen.say(f"'{name}' does nothing here: press ? for the keys.")

    def _change_order(self) -> bool:
        """Rank the rows by the next order. The present row stays on the screen."""
        if self.session.queue.split == "test":
            self._message = "The test split is reviewed in random order."
            return True
        order = ORDERS[(ORDERS.index(self.session.order) + 1) % len(ORDERS)]
        self.session.request_ranking(order)
        self._message = f"The next rows come in the order {order}."
        return True

    def _flag(self, lease: Lease) -> None:
        """Mark the row with a note; the row remains on the screen."""
        note = self._read_text("Note: ")
        if note is None:
            self._screen.say("Not flagged.")
        elif self._save(lease, "flag", note=note[:MAX_NOTE_CHARACTERS] or None):
            self._screen.say("Flagged. The row is still asked.")

    def _save(self, lease: Lease, kind: AnswerKind, *, label: str | None = None, note: str | None = None) -> bool:
        """Store an answer; it is on the disk when this returns True. False if the disk does not take it."""
        now = time.time()
        answer = AnswerFromPage(
            id=uuid.uuid4().hex,
            row_id=lease.row_id,
            question=lease.question,
            answer=kind,
            label=label,
            asked_label=lease.asked_label,
            suggestion_shown=lease.suggestion_shown,
            shown_at=int(self._shown_at * 1000),
            answered_at=int(now * 1000),
            milliseconds=max(0, int((now - self._shown_at) * 1000)),
            note=note,
        )
        while True:
            try:
                self.session.queue.answer(self.reviewer, [answer])
            except OSError as error:
                self._screen.say(
                    f"The answer is not saved ({error.strerror}): free space or fix the folder, then press any key to "
                    "try again; q drops the answer."
                )
                if self._bindings.actions.get(self.keys.read().code) == "leave":
                    return False
                continue
            if kind not in {"flag", "skip"}:
                self._answer_ids.add(answer.id)
            self._message = f"{kind}{f': {label}' if label else ''}"
            return True

    def _take_back(self, kind: str) -> bool:
        """Undo the reviewer's last answer, also one of an earlier session, or restore the last undone one."""
        queue = self.session.queue
        lines = queue.log.read(self.reviewer).lines
        answer_ids = last_answer(lines) if kind == "undo" else last_undone(lines)
        if not answer_ids:
            self._screen.say(f"Nothing is left to {kind}.")
            return False
        line = Undo.model_validate(
            {"kind": kind, "id": uuid.uuid4().hex, "reviewer": self.reviewer, "answer_ids": answer_ids}
        )
        try:
            queue.take_back(self.reviewer, line)
        except OSError as error:
            self._screen.say(f"Not saved ({error.strerror}): free space and press the key again.")
            return False
        if kind == "undo":
            self._undone_ids |= self._answer_ids & set(answer_ids)
            self._answer_ids -= set(answer_ids)
        else:  # answers of an earlier session, and skips, were not counted before
            self._answer_ids |= self._undone_ids & set(answer_ids)
        rows = {entry.id: entry.row_id for entry in lines if isinstance(entry, Answer)}
        self._row = rows[answer_ids[0]] if kind == "undo" else None
        self._message = "The answer is undone; answer again." if kind == "undo" else "The answer is restored."
        return True

    def _search(self, labels: Sequence[str]) -> str | None:
        """Choose a class by a part of its name; None if none fits."""
        typed = self._read_text("Class: ", labels)
        label = None if typed is None else next(iter(matches(labels, typed)), None)
        if label is None:
            self._screen.say("No class is chosen." if typed is None else f"No class fits '{typed}'.")
        return label

    def _read_text(self, prompt: str, labels: Sequence[str] = ()) -> str | None:
        """A text that the reviewer types; None if Escape was pressed. labels: the classes that are searched, if any."""
        typed = ""
        self._screen.show_typed(prompt, typed, ())
        while True:
            key = self.keys.read()
            if key.code in {"Escape", END_OF_INPUT}:
                return None
            if not self.keys.is_terminal:  # a line is a whole text
                return key.text
            if key.code == "Enter":
                return typed
            typed = typed[:-1] if key.code == "Backspace" else typed + key.text
            self._screen.show_typed(prompt, typed, matches(labels, typed) if labels else ())


def last_answer(lines: Sequence[Line]) -> list[str]:
    """The ids of the last answers that were not undone: one, or all of a grid; empty if there are none."""
    undone = _undone(lines)
    for line in reversed(lines):
        if isinstance(line, Answer) and line.id not in undone:
            if line.batch is None:
                return [line.id]
            return [entry.id for entry in lines if isinstance(entry, Answer) and entry.batch == line.batch]
    return []


def last_undone(lines: Sequence[Line]) -> list[str]:
    """The ids of the answers that a redo restores: those undone last, unless there was an answer since then."""
    stack: list[list[str]] = []
    for line in lines:
        if isinstance(line, Answer):
            stack.clear()
        elif isinstance(line, Undo) and line.kind == "undo":
            stack.append(list(line.answer_ids))
        elif isinstance(line, Undo) and stack:
            stack.pop()
    return stack[-1] if stack else []


def _undone(lines: Sequence[Line]) -> set[str]:
    undone: set[str] = set()
    for line in lines:
        if isinstance(line, Undo):
            undone = undone | set(line.answer_ids) if line.kind == "undo" else undone - set(line.answer_ids)
    return undone

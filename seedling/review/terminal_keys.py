"""Reads single keys from a terminal, or lines where standard input is not a terminal.

Keys have the names of seedling/review/keys.py: `KeyA`, `Digit1`, `ArrowLeft`, `Space`, `Enter`, `Backspace`, or their
character. A terminal does not report a Control key that is pressed alone. Text that is pasted is dropped, since each of
its characters would be an answer.
"""

from __future__ import annotations

import codecs
import os
import select
import string
import sys
import termios
import tty
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from seedling.review.keys import CLASSES, key_bindings

ESCAPE = b"\x1b"
ESCAPE_SECONDS = 0.05  # in which the rest of an escape sequence follows
PASTE_START, PASTE_END = b"\x1b[200~", b"\x1b[201~"
PASTE_ON, PASTE_OFF = "\x1b[?2004h", "\x1b[?2004l"
PASTE_SECONDS = 5.0
MAX_SEQUENCE_BYTES = 32
END_OF_INPUT = "EndOfInput"
LEAVE = "KeyQ"
NOT_IN_TERMINAL = frozenset({"contrast", "accept_rest", "edit_classes", "theme"})

CODES_OF_SEQUENCES = {
    **{
        f"\x1b{lead}{letter}".encode(): code
        for lead in "[O"
        for letter, code in (
            ("A", "ArrowUp"),
            ("B", "ArrowDown"),
            ("C", "ArrowRight"),
            ("D", "ArrowLeft"),
            ("H", "Home"),
            ("F", "End"),
        )
    },
    **{
        f"\x1b[{number}~".encode(): code
        for number, code in ((1, "Home"), (2, "Insert"), (3, "Delete"), (4, "End"), (5, "PageUp"), (6, "PageDown"))
    },
    **{f"\x1bO{letter}".encode(): f"F{number}" for number, letter in enumerate("PQRS", start=1)},
}
CODES_OF_CHARACTERS = {" ": "Space", "\r": "Enter", "\n": "Enter", "\x7f": "Backspace", "\b": "Backspace"} | {
    "\x04": END_OF_INPUT
}


@dataclass(frozen=True)
class Key:
    """A key. code: its name; text: what it types, empty for keys without a character."""

    code: str
    text: str = ""


def key_of_character(character: str) -> Key:
    """The key that types a character."""
    if character in CODES_OF_CHARACTERS:
        return Key(CODES_OF_CHARACTERS[character], " " if character == " " else "")
    if character in string.ascii_letters:
        return Key(f"Key{character.upper()}", character)
    if character in string.digits:
        return Key(f"Digit{character}", character)
    return Key(character, character if character.isprintable() else "")


@dataclass
class Bindings:
    """What the keys do. actions: key → action; class_keys: keys of the classes, in the order of the classes."""

    actions: dict[str, str]
    class_keys: list[str]

    @classmethod
    def of(cls, remapping: Mapping[str, Sequence[str]]) -> Bindings:
        """The bindings of the page, without actions that a terminal cannot show; KeyQ leaves unless it is remapped."""
        bindings = key_bindings(remapping)
        actions = {
            key: action
            for action, keys in bindings.items()
            for key in keys
            if action != CLASSES and action not in NOT_IN_TERMINAL
        }
        class_keys = bindings[CLASSES]
        if LEAVE not in actions and CLASSES not in remapping:
            actions[LEAVE] = "leave"
            class_keys = [key for key in class_keys if key != LEAVE]
        return cls({**actions, END_OF_INPUT: "leave"}, class_keys)

    def keys_of(self, action: str) -> list[str]:
        """The keys of an action."""
        return [key for key, bound in self.actions.items() if bound == action]


class KeySource(Protocol):
    """Where keys come from. is_terminal: whether the screen can be cleared."""

    is_terminal: bool

    def read(self) -> Key:
        """Wait for a key. Its code is END_OF_INPUT at the end."""

    def discard(self) -> None:
        """Drop keys that were pressed before the present screen was shown."""


class TerminalKeys:
    """Reads keys from a terminal without Enter; its settings are restored at the end of the block."""

    is_terminal = True

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def __enter__(self) -> Self:
        self._settings = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor, termios.TCSANOW)
        os.write(self._descriptor, PASTE_ON.encode())
        return self

    def __exit__(self, *_: object) -> None:
        termios.tcsetattr(self._descriptor, termios.TCSANOW, self._settings)
        os.write(self._descriptor, PASTE_OFF.encode())

    def read(self) -> Key:
        """Wait for a key."""
        while True:
            if not self._fill(None):
                return Key(END_OF_INPUT)
            if self._buffer.startswith(ESCAPE):
                key = self._read_sequence()
                if key is not None:
                    return key
                continue
            byte, self._buffer = self._buffer[:1], self._buffer[1:]
            if character := self._decoder.decode(byte):
                return key_of_character(character)

    def discard(self) -> None:
        """Drop keys that were pressed before the present screen was shown."""
        self._buffer = b""
        self._decoder.reset()
        termios.tcflush(self._descriptor, termios.TCIFLUSH)

    def _fill(self, seconds: float | None) -> bool:
        """Wait until there is a byte; False at the end of the input, or after so many seconds."""
        if not self._buffer and select.select([self._descriptor], [], [], seconds)[0]:
            try:
                self._buffer = os.read(self._descriptor, 1024)
            except OSError:  # the terminal is gone
                return False
        return bool(self._buffer)

    def _read_sequence(self) -> Key | None:
        """The key of an escape sequence; None for one that is not a key, which is dropped, as pasted text is."""
        sequence, self._buffer = self._buffer[:1], self._buffer[1:]
        while len(sequence) < MAX_SEQUENCE_BYTES and self._fill(ESCAPE_SECONDS):
            sequence, self._buffer = sequence + self._buffer[:1], self._buffer[1:]
            if sequence not in {b"\x1b[", b"\x1bO"} and 0x40 <= sequence[-1] <= 0x7E:
                break
        if sequence == PASTE_START:
            self._drop_paste()
            return None
        if sequence == ESCAPE:
            return Key("Escape")
        code = CODES_OF_SEQUENCES.get(sequence)
        return None if code is None else Key(code)

    def _drop_paste(self) -> None:
        tail = b""
        while not tail.endswith(PASTE_END) and self._fill(PASTE_SECONDS):
            tail, self._buffer = (tail + self._buffer[:1])[-len(PASTE_END) :], self._buffer[1:]


class LineKeys:
    """Reads lines where standard input is not a terminal: each line is one key, or a text if one is asked for."""

    is_terminal = False

    def read(self) -> Key:
        """Wait for a line. An empty line is Enter; a longer one is a text, such as the name of a class."""
        line = sys.stdin.readline()
        if not line:
            return Key(END_OF_INPUT)
        text = line.rstrip("\r\n")
        if len(text) <= 1:
            return key_of_character(text or "\n")
        return Key("Text", text)

    def discard(self) -> None:
        """A line that was written in advance is meant for a later question."""


def terminal_descriptor() -> int | None:
    """The file descriptor of standard input if it is a terminal, else None."""
    try:
        descriptor = sys.stdin.fileno()
    except (OSError, ValueError):
        return None
    return descriptor if os.isatty(descriptor) else None

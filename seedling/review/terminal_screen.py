"""What `seedling review --terminal` shows: the text, the question, the classes with their keys, and the panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from seedling.review.terminal_keys import Bindings
from seedling.terminal.console import PrintableConsole
from seedling.terminal.printable import printable

RESERVED_LINES = 14  # of the screen, for the question, the classes and the keys
MIN_TEXT_LINES = 4
MAX_LABEL_CHARACTERS = 40
MAX_MATCHES = 8
NAMES_OF_KEYS = {
    **{"ArrowLeft": "←", "ArrowRight": "→", "ArrowUp": "↑", "ArrowDown": "↓"},
    **{"Space": "space", "Backspace": "backspace", "Enter": "enter"},
}
NAMES_OF_ACTIONS = {
    "accept": "accept",
    "reject": "reject",
    "skip": "ask again later",
    "unsure": "unsure",
    "none_of_these": "none of these classes",
    "bad": "bad data",
    "flag": "flag with a note",
    "undo": "undo",
    "redo": "redo",
    "search": "choose a class by name",
    "zoom": "whole text, or its beginning",
    "flicker": "nearest labeled rows",
    "panel": "progress and estimates",
    "order": "next order of the rows",
    "mode": "verify or label",
    "help": "these keys",
    "leave": "leave; the next start returns to this row",
}
ACTIONS_ON_SCREEN = ("accept", "reject", "skip", "unsure", "none_of_these", "bad", "undo", "help", "leave")


def matches(labels: Sequence[str], typed: str) -> list[str]:
    """The classes whose name has the typed text: first equal names, then those that begin with it."""
    text = typed.casefold()
    fitting = [label for label in labels if text in label.casefold()]
    return sorted(fitting, key=lambda label: (label.casefold() != text, not label.casefold().startswith(text)))


def key_name(key: str) -> str | None:
    """The name of a key on the screen; None for one that a terminal does not report, such as Control alone."""
    if key in NAMES_OF_KEYS:
        return NAMES_OF_KEYS[key]
    if key.startswith("Key"):
        return key.removeprefix("Key").lower()
    if key.startswith("Digit"):
        return key.removeprefix("Digit")
    return key if len(key) == 1 else None


class ReviewScreen:
    """Writes to the terminal. All text of rows and labels is escaped. is_terminal: whether it can be cleared."""

    def __init__(self, console: PrintableConsole, bindings: Bindings, *, is_terminal: bool) -> None:
        self._console, self._bindings, self._is_terminal = console, bindings, is_terminal

    def say(self, sentence: str) -> None:
        """Print a sentence below the row."""
        self._print(visible(sentence, style="yellow"))

    def show_item(
        self, item: Mapping[str, Any], labels: Sequence[str], progress: str, message: str, *, shows_all: bool
    ) -> None:
        """Show a row with its question. message: what happened to the row before."""
        if self._is_terminal:
            self._console.clear()
        self._print(visible(progress, style="dim"))
        if message:
            self._print(visible(message, style="green"))
        self._print(visible("─" * min(self._console.width, 72), style="dim"))
        self._show_text(item, shows_all=shows_all)
        self._print(visible("─" * min(self._console.width, 72), style="dim"))
        self._print(self._question(item))
        if item["suggestions"]:
            self._print(visible("model: " + ", ".join(_suggestion(entry) for entry in item["suggestions"])))
        if words := [entry["word"] for entry in item["words"] if entry["weight"] > 0][:6]:
            self._print(visible("words: " + ", ".join(words), style="dim"))
        details = [item["origin"], f"labeled '{_cut(label)}'" if (label := item["previous_label"]) else ""]
        self._print(visible(" · ".join(part for part in (item["state"], *details) if part), style="dim"))
        self._print(self._classes(labels))
        is_asked = item["asked_label"] is not None
        unusable = set() if is_asked else {"reject"} if item["suggestions"] else {"accept", "reject"}
        self._print(self._keys([action for action in ACTIONS_ON_SCREEN if action not in unusable]))

    def _show_text(self, item: Mapping[str, Any], *, shows_all: bool) -> None:
        if item["missing"]:
            self.say("The text of this row is gone: its file was removed. Answer 'bad data', or skip it.")
            return
        text = visible(item["text"].expandtabs(4))
        lines = text.wrap(self._console, max(20, self._console.width))
        limit = max(MIN_TEXT_LINES, self._console.height - RESERVED_LINES)
        is_long = self._is_terminal and not shows_all and len(lines) > limit
        for line in lines[:limit] if is_long else lines:
            self._print(line)
        if is_long:
            key = self._names(self._bindings.keys_of("zoom"))
            self._print(visible(f"… {len(lines) - limit:,} more lines, {key} shows them", style="dim"))
        if item["text_cut"]:
            self._print(visible("… the text is longer, and cut here", style="dim"))

    def _question(self, item: Mapping[str, Any]) -> Text:
        if item["asked_label"] is None or item["question"] == "label":
            return visible("Which class is this?", style="bold")
        return visible(f"Is this '{_cut(item['asked_label'])}'?", style="bold")

    def _classes(self, labels: Sequence[str]) -> Text:
        """The classes with their keys; those without a key are chosen by name."""
        with_key = list(zip(self._bindings.class_keys, labels, strict=False))
        text = visible("   ".join(f"{key_name(key)} {_cut(label)}" for key, label in with_key))
        if len(labels) > len(with_key):
            key = self._names(self._bindings.keys_of("search"))
            text.append(f"   {key} finds {len(labels) - len(with_key):,} more")
        return text

    def _keys(self, actions: Sequence[str]) -> Text:
        parts = [(self._names(self._bindings.keys_of(action)), NAMES_OF_ACTIONS[action]) for action in actions]
        return visible("   ".join(f"{keys} {name.partition(';')[0]}" for keys, name in parts if keys), style="dim")

    @staticmethod
    def _names(keys: Sequence[str]) -> str:
        names = [name for key in keys if (name := key_name(key)) is not None]
        return (" or " if "/" in names else "/").join(names)

    def show_help(self, labels: Sequence[str]) -> None:
        """Show all keys."""
        for action, name in NAMES_OF_ACTIONS.items():
            if keys := self._names(self._bindings.keys_of(action)):
                self._print(visible(f"  {keys:14} {name}"))
        self._print(self._classes(labels))

    def show_panel(self, panel: Mapping[str, Any]) -> None:
        """Show the progress and the estimates."""
        rate = panel["answers_per_hour"]
        lines = [
            f"{panel['answers']:,} answers, {panel['reversals']:,} changed, {panel['remaining']:,} rows left"
            + (f", {rate:,.0f} answers per hour" if rate else ""),
            _estimate("likely label errors left", panel["errors_left"], "{:.0f}"),
            _estimate("error rate of random rows", panel["error_rate"], "{:.1%}"),
            _estimate("accuracy, cross-validated", panel["accuracy"], "{:.1%}"),
            f"enough: {'yes' if panel['enough'] else 'not yet'}. {panel['reason']}",
        ]
        for line in lines:
            self._print(visible(f"  {line}"))

    def show_neighbors(self, neighbors: Sequence[Mapping[str, Any]]) -> None:
        """Show the nearest labeled rows."""
        if not neighbors:
            self.say("No labeled row is shown for this row.")
        for neighbor in neighbors:
            text = " ".join(str(neighbor.get("text") or "").split())
            self._print(visible(f"  {neighbor['similarity']:.2f} {_cut(neighbor['label'])}: {text}"))

    def show_typed(self, prompt: str, typed: str, fitting: Sequence[str]) -> None:
        """Show what the reviewer types, and the classes that fit it."""
        line = f"{prompt}{typed}"
        if fitting:
            others = f", and {len(fitting) - MAX_MATCHES:,} more" if len(fitting) > MAX_MATCHES else ""
            line += f"   (enter: {', '.join(_cut(label) for label in fitting[:MAX_MATCHES])}{others})"
        self._print(visible(line))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=not self._is_terminal, highlight=False)


def visible(text: str, style: str = "") -> Text:
    """The text with control characters as their codes; rich's Text would drop some of them."""
    return Text(printable(text, keep="\n"), style)


def _cut(label: str) -> str:
    """A label that fits into a line."""
    return label if len(label) <= MAX_LABEL_CHARACTERS else f"{label[: MAX_LABEL_CHARACTERS - 1]}…"


def _suggestion(entry: Mapping[str, Any]) -> str:
    return f"{_cut(entry['label'])} {entry['probability']:.0%}"


def _estimate(name: str, estimate: Mapping[str, Any] | None, form: str) -> str:
    if estimate is None:
        return f"{name}: unknown yet"
    value, low, high = (form.format(estimate[key]) for key in ("value", "low", "high"))
    return f"{name}: {value} ({low} to {high})"

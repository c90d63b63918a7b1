"""A user's own expectations: expectations.py in the workspace, usable from gates.yaml by their names.

A gate that names one of them is asked again when the file has changed. Classes of Great Expectations register themselves when the file is imported. A function is less to write: one whose name begins with
`expect_column_values_` is given the column's values, as a pandas Series without the missing ones, and its other arguments from
gates.yaml; it says of each value whether it is as expected.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seedling.errors import InputError
from seedling.plugins import load_module

FILE = "expectations.py"
MODULE = "seedling_own_expectations"
START = "expect_column_values_"


@dataclass(frozen=True)
class Own:
    """What the file holds: functions by name, its text, and a hash of it; all empty where there is no file."""

    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    text: str = ""
    digest: str = ""

    def holds(self, expectation: str) -> bool:
        """Whether an expectation of this name is written there, as a function or, in capitals, as a class."""
        return _plain(expectation) in _plain(self.text)

    @property
    def meanings(self) -> dict[str, str]:
        """The first line of each function's docstring, by its name; functions without one are left out."""
        first_lines = {
            name: (function.__doc__ or "").strip().partition("\n")[0].rstrip(".")
            for name, function in self.functions.items()
        }
        return {name: line for name, line in first_lines.items() if line}


def own_expectations(workspace: Path, names: Iterable[str] | None = None) -> Own:
    """The workspace's expectations.py, imported: its classes are registered by that.

    names: the expectations that gates.yaml names; the file is left alone where it holds none of them. None: it is imported.
    Raises InputError where the file cannot be imported, with its line.
    """
    path = workspace / FILE
    if not path.is_file():
        return Own()
    text = path.read_text(encoding="utf-8", errors="replace")
    if names is not None and not any(Own(text=text).holds(name) for name in names):
        return Own()
    module = load_module(path, MODULE, "gates.yaml")
    found: dict[str, Callable[..., Any]] = {
        name: made
        for name, made in vars(module).items()
        if inspect.isfunction(made) and made.__module__ == MODULE and name.startswith("expect_")
    }
    for name, made in found.items():
        if not name.startswith(START) or not inspect.signature(made).parameters:
            raise InputError(
                f"{path}: {name}: a function must be called {START}… and take the column's values first; "
                "anything else is written as a class of Great Expectations."
            )
    return Own(found, path.read_text(encoding="utf-8"), digest_of(workspace))


def digest_of(workspace: Path) -> str:
    """A hash of the file, empty where there is none."""
    path = workspace / FILE
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest() if path.is_file() else ""


def _plain(name: str) -> str:
    return name.replace("_", "").casefold()


def arguments_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """What it takes from gates.yaml: all but the column's values."""
    return tuple(inspect.signature(function).parameters)[1:]

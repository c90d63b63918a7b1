"""A user's own expectations: expectations.py in the workspace, which gates.yaml refers to by name.

A gate that uses one of them runs again if the file has changed. Classes of Great Expectations register themselves when
the file is imported. A function is shorter: if its name starts with `expect_column_values_`, it receives the column's
non-missing values as a pandas Series, and its other arguments from gates.yaml. It returns one boolean per value:
whether the value is as expected.
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
from seedling.workspace import GATES_FILE, Workspace

MODULE = "seedling_own_expectations"
PREFIX = "expect_column_values_"


@dataclass(frozen=True)
class UserExpectations:
    """The content of the file: functions by name, the text, and a hash of it; all empty without a file."""

    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    text: str = ""
    digest: str = ""

    def defines(self, expectation: str) -> bool:
        """Whether the file contains an expectation of this name, as a function or, in CamelCase, as a class."""
        return _without_case(expectation) in _without_case(self.text)

    @property
    def meanings(self) -> dict[str, str]:
        """Function name → the first line of its docstring; functions without a docstring are left out."""
        first_lines = {
            name: (function.__doc__ or "").strip().partition("\n")[0].rstrip(".")
            for name, function in self.functions.items()
        }
        return {name: line for name, line in first_lines.items() if line}


def import_user_expectations(workspace: Path, names: Iterable[str] | None = None) -> UserExpectations:
    """Import the workspace's expectations.py, which also registers its classes.

    names: the expectations in gates.yaml; the file is not imported if it defines none of them. None: it is imported.

    Raises InputError with the line if the file cannot be imported.
    """
    path = Workspace(workspace).expectations_file
    if not path.is_file():
        return UserExpectations()
    text = path.read_text(encoding="utf-8", errors="replace")
    if names is not None and not any(UserExpectations(text=text).defines(name) for name in names):
        return UserExpectations()
    module = load_module(path, MODULE, GATES_FILE)
    functions: dict[str, Callable[..., Any]] = {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == MODULE and name.startswith("expect_")
    }
    for name, function in functions.items():
        if not name.startswith(PREFIX) or not inspect.signature(function).parameters:
            raise InputError(
                f"{path}: {name}: a function must be called {PREFIX}… and take the column's values first; "
                "write any other expectation as a class of Great Expectations."
            )
    return UserExpectations(functions, path.read_text(encoding="utf-8"), digest_of(workspace))


def digest_of(workspace: Path) -> str:
    """A hash of the file; an empty string without a file."""
    path = Workspace(workspace).expectations_file
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest() if path.is_file() else ""


def _without_case(name: str) -> str:
    return name.replace("_", "").casefold()


def arguments_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the function's arguments in gates.yaml: all parameters except the column's values."""
    return tuple(inspect.signature(function).parameters)[1:]

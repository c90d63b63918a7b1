"""A user's own expectations: expectations.py in the workspace, usable from gates.yaml by their names.

A gate that names one of them is asked again when the file has changed. Classes of Great Expectations register themselves when the file is imported. A function is less to write: one whose name begins with
`expect_column_values_` is given the column's values, as a pandas Series without the missing ones, and its other arguments from
gates.yaml; it says of each value whether it is as expected.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from tasks.errors import InputError

FILE = "expectations.py"
MODULE = "seedling_own_expectations"
START = "expect_column_values_"


def own_functions(workspace: Path) -> dict[str, Callable[..., Any]]:
    """The functions of the workspace's expectations.py by name; its classes are registered by importing it.

    Raises InputError where the file cannot be imported, with its line.
    """
    path = workspace / FILE
    if not path.is_file():
        return {}
    module = _imported(path)
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
    return found


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == str(path)]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else "?")
        raise InputError(
            f"{path}, line {line}: {type(error).__name__}: {error}. Mend the file and run again."
        ) from error
    return module


def arguments_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """What it takes from gates.yaml: all but the column's values."""
    return tuple(inspect.signature(function).parameters)[1:]


def changed_since(workspace: Path, stage: str, names: Iterable[str]) -> bool:
    """Whether a gate that names one of the user's expectations was last asked before the file was changed."""
    return digest_if_used(workspace, names) != _asked_with(workspace, stage)


def remember(workspace: Path, stage: str, names: Iterable[str]) -> None:
    """Writes down with which expectations the stage's gate was asked."""
    path = _memory(workspace, stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(digest_if_used(workspace, names), encoding="utf-8")


def digest_if_used(workspace: Path, names: Iterable[str]) -> str:
    """A hash of the file, empty where it holds none of these names."""
    path = workspace / FILE
    content = path.read_bytes() if path.is_file() else b""
    used = any(name.encode() in content for name in names)
    return hashlib.blake2b(content, digest_size=8).hexdigest() if used else ""


def _asked_with(workspace: Path, stage: str) -> str:
    path = _memory(workspace, stage)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _memory(workspace: Path, stage: str) -> Path:
    return workspace / ".seedling" / "gates" / f"{stage}.own"

"""Functions that users bring: a file in data/, whose change is a change of a stage's input, or an installed package's entry points."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.errors import InputError

AUGMENTING = (
    "augmenting.py",
    "seedling.augmenting",
)  # file in data/ and entry points: operations on rows, and finders of objects


def own_functions(path: Path, entry_points: str) -> dict[str, Callable[..., Any]]:
    """By name: what packages register under `entry_points`, and the public functions that the file itself defines, which come first.

    Raises InputError where the file cannot be imported.
    """
    found: dict[str, Callable[..., Any]] = {
        one.name: one.load() for one in importlib.metadata.entry_points(group=entry_points)
    }
    if path.is_file():
        name = f"seedling_{path.stem}"
        wanted = importlib.util.spec_from_file_location(name, path)
        assert wanted is not None  # noqa: S101  (the file is there)
        assert wanted.loader is not None  # noqa: S101
        module = importlib.util.module_from_spec(wanted)
        try:
            wanted.loader.exec_module(module)
        except Exception as error:
            raise InputError(f"{path} cannot be imported: {type(error).__name__}: {error}.") from error
        own = {one: made for one, made in vars(module).items() if callable(made) and not one.startswith("_")}
        found |= {one: made for one, made in own.items() if getattr(made, "__module__", "") == name}
    return found

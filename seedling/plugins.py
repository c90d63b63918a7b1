"""Loads plugins: Python files of the workspace that params.yaml or gates.yaml names, and entry points of packages.

This module loads all plugins. A file is executed only if a setting names it, never because of its location. The path of
each executed file is printed to standard error once per run. With `--no-plugins` (SEEDLING_NO_PLUGINS), loading a
plugin is an error.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from seedling.errors import InputError
from seedling.files.data_files import inside
from seedling.terminal.printable import printable

NO_PLUGINS = "SEEDLING_NO_PLUGINS"  # an environment variable, so that child processes inherit it
ANNOUNCED = "SEEDLING_PLUGINS_ANNOUNCED"  # files whose loading was printed, so that child processes do not repeat it
AUGMENTING_GROUP = "seedling.augmenting"  # of entry points; without one, the default file in data/ is read
FILE_OF_MODULE = "__seedling_plugin_file__"  # attribute of a module that was loaded from data/
CODE = "code"  # the reason code for files that `seedling init` leaves out because they are code
CODE_SUFFIXES = frozenset(
    [
        ".py",
        ".pyw",
        ".pyc",
        ".pyo",
        ".pyd",
        ".so",
        ".dylib",
        ".dll",
        ".exe",
        ".com",
        ".msi",
        ".jar",
        ".sh",
        ".bash",
        ".zsh",
        ".fish",
        ".bat",
        ".cmd",
        ".ps1",
        ".vbs",
        ".js",
        ".mjs",
        ".wsf",
        ".pl",
        ".rb",
        ".php",
        ".lnk",
        ".desktop",
        ".pth",
    ]
)


def is_code(path: Path) -> bool:
    """Whether the file's suffix is that of a script, a library or a program."""
    return path.suffix.lower() in CODE_SUFFIXES


def plugin_functions(
    data: Path | None, file: str | None, entry_points: str, named_in: str
) -> dict[str, Callable[..., Any]]:
    """Load the public functions of a file in data/ and of the entry points of packages; return name → function.

    A function of the file overrides an entry point of the same name. file: None loads nothing. entry_points: the entry
    point group. named_in: the key of params.yaml that names the file, for messages. Raises InputError if the file is
    missing, leads out of data/ or cannot be imported, or if plugins are switched off.
    """
    if file is None or data is None:
        return {}
    path = inside(data, file)
    _check_allowed(path, named_in)
    functions: dict[str, Callable[..., Any]] = {
        entry.name: entry.load() for entry in importlib.metadata.entry_points(group=entry_points)
    }
    if not path.is_file():
        if functions:
            return functions
        raise InputError(
            f"{path} does not exist, but {named_in} in params.yaml names it: create it, or set the key to null."
        )
    name = f"seedling_{path.stem}"
    module = load_module(path, name, named_in)
    vars(module)[FILE_OF_MODULE] = f"data/{file}"
    public_callables = {
        key: value for key, value in vars(module).items() if callable(value) and not key.startswith("_")
    }
    return functions | {
        key: value for key, value in public_callables.items() if getattr(value, "__module__", "") == name
    }


def defined_in(function: Callable[..., Any]) -> str:
    """The file in data/ that defines a plugin, as the user names it; of an entry point, its module.

    A run reads a snapshot of data/, so the path of the executed file is not the one to edit.
    """
    module_name = getattr(function, "__module__", None) or type(function).__module__
    file: str = vars(sys.modules[module_name]).get(FILE_OF_MODULE, module_name) if module_name in sys.modules else ""
    return file or module_name


def load_module(path: Path, name: str, named_in: str) -> ModuleType:
    """Execute the file as the module `name`.

    Raises InputError with the line at which it failed, or if plugins are switched off.
    """
    _check_allowed(path, named_in)
    _announce(path, named_in)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else "?")
        raise InputError(
            f"{path}, line {line}: {type(error).__name__}: {error}. Fix the file and run again."
        ) from error
    return module


def _check_allowed(path: Path, named_in: str) -> None:
    if os.environ.get(NO_PLUGINS):
        raise InputError(
            f"{named_in} names the plugin {path}, but plugins are switched off (--no-plugins or {NO_PLUGINS}): "
            f"review the file and run without that option, or remove {named_in}."
        )


def _announce(path: Path, named_in: str) -> None:
    announced = os.environ.get(ANNOUNCED, "").split(os.pathsep)
    if str(path) not in announced:
        os.environ[ANNOUNCED] = os.pathsep.join([*filter(None, announced), str(path)])
        print(printable(f"Plugin loaded: {path} ({named_in})"), file=sys.stderr)

"""Finds the files that a table's image column names: also Windows paths, another machine's paths, and file URLs."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from seedling.files.data_files import NOT_REGULAR, OUTSIDE, fault_of

ADDRESS, PATH_OUTSIDE, NO_SUCH_FILE = "address_not_file", "path_outside_data", "no_such_file"
NO_IMAGE_THERE = frozenset({ADDRESS, PATH_OUTSIDE, NO_SUCH_FILE, OUTSIDE})  # reasons: the image cannot be read here
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
DRIVE = re.compile(r"[A-Za-z]:[\\/]")
MAX_PREFIX_SEARCHES = 1_000  # absolute paths that are tried until their common prefix is found


class ImagePaths:
    """Resolves paths that start in `folder` to files below `root`. Both are resolved."""

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder, self._root = folder, root
        self._names: dict[Path, dict[str, list[str]]] = {}
        self._prefix: tuple[str, ...] | None = None  # of absolute paths, which stands for `folder`
        self._searches = 0

    def find(self, value: str) -> tuple[Path, str | None]:
        """Return (file, None), or (path, the reason why it is not read)."""
        try:
            return self._find(value.strip())
        except (OSError, ValueError):  # a name too long for any file system, or with a NUL
            return self._folder, NO_SUCH_FILE

    def _find(self, text: str) -> tuple[Path, str | None]:
        if text.lower().startswith("file:"):
            text = unquote(urlsplit(text).path)
        elif SCHEME.match(text) and not DRIVE.match(text):
            return self._folder, ADDRESS
        exact = Path(os.path.normpath(self._folder / text))
        if not DRIVE.match(text) and exact.is_relative_to(self._root) and os.path.lexists(exact):
            return exact, self._fault(exact)
        parts = PurePosixPath(os.path.normpath(text.replace("\\", "/"))).parts
        if DRIVE.match(text) or text.startswith(("/", "\\")):
            if exact.is_relative_to(self._root) and not DRIVE.match(text):
                return exact, self._fault(exact)
            return self._of_another_machine(parts)
        path = Path(os.path.normpath(self._folder.joinpath(*parts)))
        if not path.is_relative_to(self._root):
            return path, PATH_OUTSIDE
        path = self._as_written_here(path)
        return path, self._fault(path)

    def _of_another_machine(self, parts: tuple[str, ...]) -> tuple[Path, str | None]:
        """Resolve an absolute path of another machine: its prefix, the same for all rows, stands for the folder."""
        if self._prefix is None and self._searches < MAX_PREFIX_SEARCHES:
            self._searches += 1
            ends = (number for number in range(1, len(parts)) if self._inner(parts[number:]).is_file())
            number = next(ends, None)
            self._prefix = None if number is None else parts[:number]
        if self._prefix is None or parts[: len(self._prefix)] != self._prefix:
            return self._folder, PATH_OUTSIDE
        path = self._inner(parts[len(self._prefix) :])
        return path, self._fault(path)

    def _inner(self, parts: tuple[str, ...]) -> Path:
        return self._as_written_here(self._folder.joinpath(*parts))

    def _as_written_here(self, path: Path) -> Path:
        """Return the existing path of this name, or the only one that differs in case or in Unicode composition."""
        if os.path.lexists(path) or not path.is_relative_to(self._root):
            return path
        actual = self._root
        for part in path.relative_to(self._root).parts:
            if not os.path.lexists(actual / part):
                alike = self._names_in(actual).get(_folded(part), [])
                if len(alike) != 1:
                    return path
                part = alike[0]
            actual /= part
        return actual

    def _names_in(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._names:
            names = defaultdict(list)
            if folder.is_dir() and folder.resolve().is_relative_to(self._root):
                for name in sorted(path.name for path in folder.iterdir()):
                    names[_folded(name)].append(name)
            self._names[folder] = names
        return self._names[folder]

    def _fault(self, path: Path) -> str | None:
        fault = fault_of(path, self._root)
        if fault is None:
            return None
        return fault if fault in {OUTSIDE, NOT_REGULAR} and not path.is_dir() else NO_SUCH_FILE


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()

"""Record what the processes of a run decode, hash and read, when SEEDLING_RECORDS names a folder.

Python imports this module at the start of every process whose PYTHONPATH has this folder, so that worker processes
are recorded too. The functions of Seedling are wrapped when their module is imported, and do what they do otherwise.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.abc
import importlib.machinery
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

STAGES = ("scrape", "validate", "augment", "synthesize", "train", "pseudo_label", "evaluate", "report", "gates")
_lock = threading.Lock()
_file: Any = None


def record(*fields: object) -> None:
    """Append one line of tab-separated fields to this process's file."""
    global _file
    with _lock:
        if _file is None:
            _file = (Path(os.environ["SEEDLING_RECORDS"]) / f"{os.getpid()}.tsv").open("a", buffering=1)
        _file.write("\t".join(map(str, fields)) + "\n")


def stage_here() -> str:
    """Return the stage whose package called this function; in threads of shared packages, the stage that runs."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        package, _, rest = str(frame.f_globals.get("__name__", "")).partition(".")
        if package == "seedling" and (stage := rest.partition(".")[0]) in STAGES:
            return stage
        frame = frame.f_back
    return os.environ.get("SEEDLING_RECORDED_STAGE", "report")


def counting_decoder(decode: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the decoder of images."""

    @functools.wraps(decode)
    def recorded(encoded: bytes, *arguments: Any, **keywords: Any) -> Any:
        record("decode", stage_here(), hashlib.sha256(encoded).hexdigest()[:16])
        return decode(encoded, *arguments, **keywords)

    return recorded


def counting_digest(digest: Callable[[Path], str]) -> Callable[[Path], str]:
    """Wrap the hash of a whole folder."""

    @functools.wraps(digest)
    def recorded(folder: Path) -> str:
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        record("hash", stage_here(), size)
        return digest(folder)

    return recorded


def bytes_read() -> int:
    """Return the bytes that this process has read from files so far."""
    with Path("/proc/self/io").open(encoding="ascii") as file:
        return int(file.readline().split()[1])


def counting_payloads(payloads: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Wrap the reader of images and texts. What a consumer reads between two rows is not counted."""

    @functools.wraps(payloads)
    def recorded(*arguments: Any, **keywords: Any) -> Iterator[Any]:
        stage, rows, read, returned = stage_here(), payloads(*arguments, **keywords), 0, 0
        while True:
            before = bytes_read()
            row = next(rows, None)
            read += bytes_read() - before
            if row is None:
                break
            returned += len(row[1])
            yield row
        record("payloads", stage, read, returned)

    return recorded


WRAPPED: dict[str, dict[str, Callable[[Any], Any]]] = {
    "seedling.media.decoding": {"decode": counting_decoder},
    "seedling.dataset.generation": {"digest": counting_digest, "payloads": counting_payloads},
}


class WrappingLoader(importlib.abc.Loader):
    """Loads a module as its own loader does, then wraps its functions."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Create the module."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then wrap its functions, before another module imports them from it."""
        self._loader.exec_module(module)
        for name, wrap in WRAPPED[module.__name__].items():
            if hasattr(module, name):
                setattr(module, name, wrap(getattr(module, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


class WrappingFinder(importlib.abc.MetaPathFinder):
    """Finds the modules whose functions are wrapped."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Find the module as usual, with a loader that wraps its functions."""
        if name not in WRAPPED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = WrappingLoader(spec.loader)
        return spec


if os.environ.get("SEEDLING_RECORDS"):
    sys.meta_path.insert(0, WrappingFinder())

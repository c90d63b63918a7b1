"""A user's folder: `labelled/<class>/*`, `unlabelled/*`, and optional `test`, `validation` and `out_of_scope`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tasks.errors import InputError
from tasks.generation import Modality
from tasks.scrape.items import Item, inside, tidy_label
from tasks.sources import FolderSource

ROOTS = {
    "labelled": "train",
    "labeled": "train",
    "train": "train",
    "unlabelled": "pool",
    "unlabeled": "pool",
    "pool": "pool",
    "test": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "out_of_scope": "out_of_scope",
}
TEXT_SUFFIXES = frozenset({".txt"})


def read_folder(
    source: FolderSource, data: Path, modality: Modality, max_bytes: int, elsewhere: frozenset[Path] = frozenset()
) -> Iterator[Item]:
    """The folder's items, by split and path. Raises InputError where there is no such folder or nothing in it.

    elsewhere: folders that belong to other sources. Where one folder is named like a split, those that are not are
    rejected file by file, so that a class called 'test' does not make the others vanish.
    """
    root = inside(data, source.path)
    if not root.is_dir():
        raise InputError(f"{root} is no folder: put pictures in {data}/labelled/<class>/ and {data}/unlabelled/.")
    found = False
    together = re.compile(source.group) if source.group else None
    for item in _items(root, data.resolve(), modality, max_bytes, elsewhere):
        found = True
        yield replace(item, group=_group(together, item.origin)) if together else item
    if not found and not source.may_be_empty:
        raise InputError(f"{root} holds no files: put pictures in {root}/labelled/<class>/ and {root}/unlabelled/.")


def empty_classes(source: FolderSource, data: Path, elsewhere: frozenset[Path] = frozenset()) -> list[str]:
    """The classes that have a folder in which no file is found: not through a link either, which is not followed."""
    empty = []
    for top, split in _known(inside(data, source.path), elsewhere):
        for folder in sorted(top.iterdir()) if split in {"train", "validation", "test"} else ():
            stands_for_one = folder.is_dir() and not folder.name.startswith(".") and folder.resolve() not in elsewhere
            if stands_for_one and (folder.is_symlink() or next(_files(folder, elsewhere), None) is None):
                empty.append(tidy_label(folder.name) or folder.name)
    return empty


def _group(together: re.Pattern[str], origin: str) -> str | None:
    found = together.search(origin)
    return None if found is None else f"name {found[1]}"


def _items(root: Path, data: Path, modality: Modality, max_bytes: int, elsewhere: frozenset[Path]) -> Iterator[Item]:
    known = _known(root, elsewhere)
    for top, split in known:
        for path in _files(top, elsewhere):
            yield _item(path, top, split, data, modality, max_bytes)
    if known[0][0] != root:
        strays = [
            path
            for top in _tops(root, elsewhere)
            if top.name.casefold() not in ROOTS
            for path in _files(top, elsewhere)
        ]
        strays += [path for path in sorted(root.iterdir()) if path.is_file() and path.resolve() not in elsewhere]
        for path in strays:
            if not path.name.startswith("."):
                item = _item(path, root, "pool", data, modality, max_bytes)
                yield replace(item, reason="outside_known_folders")


def _tops(root: Path, elsewhere: frozenset[Path]) -> list[Path]:
    folders = sorted(top for top in root.iterdir() if top.is_dir() and not top.name.startswith("."))
    return [top for top in folders if top.resolve() not in elsewhere]


def _known(root: Path, elsewhere: frozenset[Path]) -> list[tuple[Path, str]]:
    """The folders that stand for a split, each with it; the root itself where there is none."""
    tops = _tops(root, elsewhere)
    known = [(top, ROOTS[top.name.casefold()]) for top in tops if top.name.casefold() in ROOTS]
    return known or [(root, "train")]  # an ImageFolder as it stands: every folder is a class


def _files(top: Path, elsewhere: frozenset[Path]) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(top):
        inner = sorted(name for name in subfolders if not name.startswith("."))
        subfolders[:] = [name for name in inner if Path(folder, name).resolve() not in elsewhere]
        for name in sorted(names):
            path = Path(folder, name)
            hidden = name.startswith(".") or name in {"Thumbs.db", "desktop.ini"}
            if not hidden and not (folder == str(top) and path.resolve() in elsewhere):
                yield path


def _item(path: Path, top: Path, split: str, data: Path, modality: Modality, max_bytes: int) -> Item:
    inner = path.relative_to(top).parts
    label = tidy_label(inner[0]) if len(inner) > 1 and split not in {"pool", "out_of_scope"} else None
    return Item(
        origin=path.relative_to(data).as_posix(),
        load=lambda: path.read_bytes() if modality == "image" else path.read_text(encoding="utf-8"),
        split=split,
        label=label,
        label_source="human" if label else None,
        reason=_reason(path, split, label, modality, max_bytes),
    )


def _reason(path: Path, split: str, label: str | None, modality: Modality, max_bytes: int) -> str | None:
    if path.is_symlink() and not path.exists():
        return "broken_link"
    if modality == "text" and path.suffix.lower() not in TEXT_SUFFIXES:
        return "not_a_text"
    if path.stat().st_size > max_bytes:
        return "too_many_bytes"
    if label is None and split not in {"pool", "out_of_scope"}:
        return "outside_class_folder"
    return None

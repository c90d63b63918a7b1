"""Reads a generation's manifest, and checks it against its rows and files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from seedling.errors import DamagedFile, IncompleteGeneration, MissingGeneration
from seedling.files.data_files import OF_DVC, real_path
from seedling.files.reading import remedy
from seedling.records.manifest import Manifest
from seedling.workspace import GENERATIONS, MANIFEST, MODELS, PART_NAME, REJECTED


@dataclass(frozen=True)
class RowsOnDisk:
    """The numbers of rows in the files of a generation."""

    kept: int
    rejected: int


def check_counts(manifest: Manifest, on_disk: RowsOnDisk | None = None, *, rows_in: int | None = None) -> None:
    """Check that rows in = rows kept + rows rejected, and that the files have as many rows as the manifest.

    on_disk: from `rows_on_disk`; None: only the manifest is checked. rows_in: counted elsewhere; None: that of the
    manifest.

    Raises IncompleteGeneration if the numbers differ.
    """
    rows = manifest.rows
    rows_in = rows.rows_in if rows_in is None else rows_in
    if rows_in != rows.kept + rows.rejected:
        raise IncompleteGeneration(
            f"Stage '{manifest.stage}' lost rows: {rows_in} in, but {rows.kept} kept + {rows.rejected} "
            "rejected. This is an error in Seedling: please report it with the manifest."
        )
    if on_disk is not None and (on_disk.kept, on_disk.rejected) != (rows.kept, rows.rejected):
        raise IncompleteGeneration(
            f"Stage '{manifest.stage}': the manifest has {rows.kept} kept and {rows.rejected} rejected rows, "
            f"but the files hold {on_disk.kept} and {on_disk.rejected}: run the stage again."
        )


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest.

    Raises MissingGeneration if the folder is absent or incomplete, and DamagedFile if the manifest or a part is not
    valid.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise MissingGeneration(folder.name if folder.parent.name == GENERATIONS else folder, stage_of(folder))
    manifest = Manifest.read(path)
    for name in [*(part.file for part in manifest.parts), REJECTED]:
        _check_part(path, name)
    return manifest


def _check_part(manifest: Path, name: str) -> None:
    """Check that a part is a file of the generation, or a link into DVC's cache.

    Raises DamagedFile for a name in another folder or for another link.
    """
    if name != REJECTED and PART_NAME.fullmatch(name) is None:
        raise DamagedFile(manifest, f"it names {name!r}, which is not a part of a generation", remedy(manifest))
    part = manifest.with_name(name)
    if part.is_symlink() and OF_DVC.search(real_path(part).as_posix()) is None:
        raise DamagedFile(part, f"it is a link to {real_path(part)}", remedy(part))


def digest(folder: Path) -> str:
    """A hash of the names and contents of the folder's files, 16 hexadecimal digits."""
    folder_digest = hashlib.blake2b(digest_size=8)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        folder_digest.update(
            path.relative_to(folder).as_posix().encode() + b"\x1f" + hashlib.blake2b(path.read_bytes()).digest()
        )
    return folder_digest.hexdigest()


def stage_of(folder: Path) -> str:
    """The stage that writes the folder: `generations/pseudo_label/1` → `pseudo_label@1`, `models/0` → `train@0`."""
    if folder.parent.name in {"pseudo_label", MODELS}:
        return f"{folder.parent.name.replace(MODELS, 'train')}@{folder.name}"
    return folder.name

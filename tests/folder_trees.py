"""Folders of images for the tests of what is read of a folder, and what became of each file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seedling.config.params import ScrapeParams, WorkspaceConfig
from seedling.dataset.generation import Modality, read, read_rejected
from seedling.media import images
from seedling.records.manifest import read_notes
from seedling.records.stage_notes import FilesRecord, ScrapeNotes
from seedling.scrape import scrape
from seedling.workspace import IGNORED


def image(seed: int) -> bytes:
    """Twelve by twelve random pixels, as PNG."""
    return images.encode(np.random.default_rng(seed).integers(0, 255, (12, 12, 3)).astype(np.uint8))


def fill(folder: Path, count: int, first_seed: int = 0, suffix: str = ".png") -> None:
    """Makes the folder, with so many different images, 000.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:03d}{suffix}").write_bytes(image(first_seed + number))


def write_table(path: Path, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *rows])


@dataclass(frozen=True)
class Scraped:
    """What the scrape stage made of a data folder: (split, label) per file or row, reasons by origin, ignored files, and the counts."""

    kept: dict[str, tuple[str, str | None]]
    rejected: dict[str, str]
    ignored: dict[str, str]
    files: FilesRecord


def scraped(data: Path, output: Path, sources: Sequence[dict[str, Any]], modality: Modality = "image") -> Scraped:
    """Runs the scrape stage's function on data/."""
    params = ScrapeParams.model_validate({"sources": list(sources)})
    scrape(params, WorkspaceConfig(modality=modality, seed=0), data=data, output=output)
    kept, rejected, ignored = read(output), read_rejected(output), output / IGNORED
    listed = list(csv.DictReader(ignored.open(encoding="utf-8", newline=""))) if ignored.exists() else []
    files = read_notes(output, ScrapeNotes).files
    assert files is not None
    return Scraped(
        dict(zip(kept["origin"], zip(kept["split"], kept["label"], strict=True), strict=True)),
        dict(zip(rejected["origin"], rejected["reason"], strict=True)),
        {row["file"]: row["reason"] for row in listed},
        files,
    )

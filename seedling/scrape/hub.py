"""Reads a dataset of the Hugging Face Hub, or a local folder of that form: the only importer of `datasets`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedling.config.hub_revisions import warn_if_unpinned
from seedling.config.sources import HuggingFaceSource
from seedling.dataset.generation import SPLITS, Modality
from seedling.errors import InputError
from seedling.extras import require
from seedling.files.data_files import OUTSIDE, fault_of, inside, read_bytes
from seedling.scrape.items import Item
from seedling.scrape.label_values import label_value

LABELED_SPLITS = frozenset(("train", "validation", "test"))
SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
    "unsupervised": "pool",
}


def read_hub(source: HuggingFaceSource, data: Path, modality: Modality, max_bytes: int) -> Iterator[Item]:
    """Yield the dataset's rows, split by split in their order.

    Raises InputError if `datasets` is missing or cannot load the dataset, or if a column is missing.
    """
    column = source.text if modality == "text" else source.image
    for name, rows in _splits(source, data):
        split = source.splits.get(name) or SPLIT_NAMES.get(name)
        if split is None or (source.splits and name not in source.splits):
            continue
        if split not in SPLITS:
            raise InputError(f"params.yaml: splits: '{split}' is not one of {', '.join(SPLITS)}.")
        if column not in rows.column_names:
            raise InputError(
                f"Dataset {source.dataset} has no column '{column}': it has {', '.join(rows.column_names)}."
            )
        class_names = getattr(rows.features.get(source.label), "names", None)
        reader = RowReader(source, data, max_bytes, split, column, class_names or ())
        for number, row in enumerate(_undecoded(rows, column, modality)):
            yield reader.item(row, origin=f"{source.dataset}/{name}#{number}")


def _splits(source: HuggingFaceSource, data: Path) -> Iterator[tuple[str, Any]]:
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    require("hub", "A source of kind huggingface")
    import datasets

    local = inside(data, source.dataset)
    path_or_name = str(local) if local.exists() else source.dataset
    try:
        loaded = datasets.load_dataset(path_or_name, source.config, revision=source.revision)
    except Exception as error:
        raise InputError(
            f"The dataset {source.dataset} could not be loaded "
            f"({type(error).__name__}: {str(error).splitlines()[0][:200]}): name a folder in data/ or a dataset of the "
            "Hub, with its `config` if it has several, and check that the Hub is reachable."
        ) from error
    if not local.exists():
        warn_if_unpinned(
            f"The dataset {source.dataset}", source.revision, "the source's `revision`, a commit's 40 digits"
        )
    yield from loaded.items()


def _undecoded(rows: Any, column: str, modality: Modality) -> Any:
    """Return the rows with images as bytes, which are decoded later within limits."""
    if modality == "text":
        return rows
    import datasets

    return rows.cast_column(column, datasets.Image(decode=False))


def _image(cell: Mapping[str, Any], data: Path) -> tuple[bytes | None, str | None]:
    """Return (bytes of a cell, None), or (None, reason). A path is read only inside data/ and the Hub's own caches."""
    if cell.get("bytes") or not cell.get("path"):
        return cell.get("bytes"), None
    import datasets
    from huggingface_hub import constants

    path = Path(str(cell["path"])).absolute()
    for root in (data, Path(datasets.config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE)):
        if (fault := fault_of(path, root.resolve())) != OUTSIDE:
            return (read_bytes(path, root.resolve()), None) if fault is None else (None, fault)
    return None, OUTSIDE


@dataclass(frozen=True, slots=True)
class RowReader:
    """Makes items of the rows of one split. column: of the content; class_names: of class numbers, or empty."""

    source: HuggingFaceSource
    data: Path
    max_bytes: int
    split: str
    column: str
    class_names: Sequence[str]

    def item(self, row: Any, origin: str) -> Item:
        """Return a row of the dataset as an item."""
        value = label_value(row.get(self.source.label), self.class_names)  # -1: no label if class numbers have names
        content, reason = self._content(row[self.column], value.reason)
        has_split = value.label or value.reason or self.split in {"pool", "out_of_scope"}
        split = self.split if has_split else "pool"
        human_label = value.label if split in LABELED_SPLITS else None
        return Item(
            origin=origin,
            load=lambda: content,
            split=split,
            label=human_label,
            label_source="human" if human_label else None,
            license=self.source.license,
            attribution=self.source.attribution,
            fields={
                name: str(cell)
                for name, cell in row.items()
                if name != self.column and isinstance(cell, (str, int, float))
            },
            reason=reason,
        )

    def _content(self, cell: Any, label_reason: str | None) -> tuple[Any, str | None]:
        """Return the content of a cell and the reason to reject it. label_reason: why the label is not valid."""
        empty: bytes | str = b"" if isinstance(cell, dict | bytes) else ""
        content, reason = _image(cell, self.data) if isinstance(cell, dict) else (cell, None)
        if label_reason is not None and self.split in LABELED_SPLITS:
            reason = reason or label_reason
        if reason is not None:
            return empty, reason
        if content is None or content == "":
            return empty, "empty"
        if isinstance(content, bytes) and len(content) > self.max_bytes:
            reason = "too_many_bytes"
        return content, reason

"""Reads a dataset of the Hugging Face Hub, or a local folder of that form: the only importer of `datasets`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
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
        for number, row in enumerate(_undecoded(rows, column, modality)):
            origin = f"{source.dataset}/{name}#{number}"
            yield _item(row, origin, split, column, class_names, source, data, max_bytes)


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


def _item(
    row: Any,
    origin: str,
    split: str,
    column: str,
    class_names: list[str] | None,
    source: HuggingFaceSource,
    data: Path,
    max_bytes: int,
) -> Item:
    content = row[column]
    value = label_value(row.get(source.label), class_names or ())  # -1 means no label if class numbers have names
    label, reason = value.label, None
    empty: bytes | str = b"" if isinstance(content, dict | bytes) else ""
    if isinstance(content, dict):
        content, reason = _image(content, data)
    if value.reason is not None and split in {"train", "validation", "test"}:
        reason = reason or value.reason
    if reason is not None:
        content = empty
    elif content is None or content == "":
        content, reason = empty, "empty"
    elif isinstance(content, bytes) and len(content) > max_bytes:
        reason = "too_many_bytes"
    split = split if label or value.reason or split in {"pool", "out_of_scope"} else "pool"
    human_label = label if split in {"train", "validation", "test"} else None
    fields = {name: str(cell) for name, cell in row.items() if name != column and isinstance(cell, (str, int, float))}
    return Item(
        origin=origin,
        load=lambda: content,
        split=split,
        label=human_label,
        label_source="human" if human_label else None,
        license=source.license,
        attribution=source.attribution,
        fields=fields,
        reason=reason,
    )

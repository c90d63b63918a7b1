"""A dataset of the Hugging Face Hub, or one of its kind in a folder: the only importer of `datasets`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seedling.config.hub_revisions import warn_if_unpinned
from seedling.config.sources import HuggingFaceSource
from seedling.dataset.generation import SPLITS, Modality
from seedling.errors import InputError
from seedling.files.data_files import OUTSIDE, fault_of, inside, read_bytes
from seedling.scrape.items import Item
from seedling.scrape.label_values import label_value

NAMED = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
    "unsupervised": "pool",
}


def read_hub(source: HuggingFaceSource, data: Path, modality: Modality, max_bytes: int) -> Iterator[Item]:
    """The dataset's rows, split by split in their order. Raises InputError where `datasets` is missing or cannot load it, or a column is not there."""
    wanted = source.text if modality == "text" else source.image
    for name, split in _splits(source, data):
        ours = source.splits.get(name) or NAMED.get(name)
        if ours is None or (source.splits and name not in source.splits):
            continue
        if ours not in SPLITS:
            raise InputError(f"params.yaml: splits: '{ours}' is none of {', '.join(SPLITS)}.")
        if wanted not in split.column_names:
            raise InputError(
                f"Dataset {source.dataset} has no column '{wanted}': it has {', '.join(split.column_names)}."
            )
        names = getattr(split.features.get(source.label), "names", None)
        for number, row in enumerate(_undecoded(split, wanted, modality)):
            yield _item(row, f"{source.dataset}/{name}#{number}", ours, wanted, names, source, data, max_bytes)


def _splits(source: HuggingFaceSource, data: Path) -> Iterator[tuple[str, Any]]:
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    try:
        import datasets
    except ImportError as error:
        raise InputError("A source of kind huggingface needs `datasets`: pip install 'seedling-ml[hub]'.") from error
    local = inside(data, source.dataset)
    place = str(local) if local.exists() else source.dataset
    try:
        loaded = datasets.load_dataset(place, source.config, revision=source.revision)
    except Exception as error:
        raise InputError(
            f"The dataset {source.dataset} could not be loaded ({type(error).__name__}: {str(error).splitlines()[0][:200]}): "
            "name a folder in data/ or a dataset of the Hub, its `config` where it has several, and look whether the Hub answers."
        ) from error
    if not local.exists():
        warn_if_unpinned(
            f"The dataset {source.dataset}", source.revision, "the source's `revision`, a commit's 40 digits"
        )
    yield from loaded.items()


def _undecoded(split: Any, wanted: str, modality: Modality) -> Any:
    """Images stay bytes: decoding them is our own business, within limits."""
    if modality == "text":
        return split
    import datasets

    return split.cast_column(wanted, datasets.Image(decode=False))


def _image(cell: Mapping[str, Any], data: Path) -> tuple[bytes | None, str | None]:
    """The bytes of a cell of `datasets`, and the reason where its path is not read: a path counts inside data/ and the Hub's own caches."""
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
    wanted: str,
    names: list[str] | None,
    source: HuggingFaceSource,
    data: Path,
    max_bytes: int,
) -> Item:
    content = row[wanted]
    of_label = label_value(row.get(source.label), names or ())  # -1 stands for no label where the numbers have names
    label, reason = of_label.label, None
    nothing: bytes | str = b"" if isinstance(content, dict | bytes) else ""
    if isinstance(content, dict):
        content, reason = _image(content, data)
    if of_label.reason is not None and split in {"train", "validation", "test"}:
        reason = reason or of_label.reason
    if reason is not None:
        content = nothing
    elif content is None or content == "":
        content, reason = nothing, "empty"
    elif isinstance(content, bytes) and len(content) > max_bytes:
        reason = "too_many_bytes"
    ours = split if label or of_label.reason or split in {"pool", "out_of_scope"} else "pool"
    labeled = label if ours in {"train", "validation", "test"} else None
    fields = {
        name: str(value) for name, value in row.items() if name != wanted and isinstance(value, (str, int, float))
    }
    return Item(
        origin=origin,
        load=lambda: content,
        split=ours,
        label=labeled,
        label_source="human" if labeled else None,
        license=source.license,
        attribution=source.attribution,
        fields=fields,
        reason=reason,
    )

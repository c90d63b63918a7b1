"""A dataset that Seedling exported is read back unchanged: contents, labels, splits, label sources, licenses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seedling.config.params import WorkspaceConfig, load
from seedling.config.sources import TableSource
from seedling.dataset.generation import GenerationWriter, Modality, Row, identify, read
from seedling.export.dataset import export
from seedling.formats import DatasetForm
from seedling.init.create import _sources
from seedling.init.table_sources import TableOptions
from seedling.media import images
from seedling.scrape import scrape
from seedling.scrape.table import read_table

CLASSES = ["../evil", "=1+1", "0", "1.0", "-1", "nan", "['a']", "Größe: xl", "[x](y)", "pool"]
TEXTS = [
    'he said "no, never"',
    "two\nlines, and a comma",
    "=SUM(A1)",
    "tab\there",
    "'quoted'",
    "ends with a backslash \\",
    "naïve 👩\u200d🚀",
]
COLUMNS = ["id", "split", "label", "label_source", "weight", "confidence", "license", "attribution"]


def rows(modality: Modality) -> list[Row]:
    """Two rows of each class in training, one in each other labeled split, and two in the pool; one label is a rule's."""
    import numpy as np

    labeled_rows: list[Row] = []
    for number, (split, label) in enumerate(
        [
            *(("train", label) for label in CLASSES for _ in range(2)),
            *((split, label) for split in ("validation", "test") for label in CLASSES),
            ("pool", None),
            ("pool", None),
        ]
    ):
        payload: bytes | str = f"{TEXTS[number % len(TEXTS)]} {number}"
        if modality == "image":
            payload = images.encode(np.full((12, 12, 3), 5 * number, dtype=np.uint8))
        content = images.content(images.decode(payload)) if isinstance(payload, bytes) else payload.encode()
        by_rule = number == 1
        labeled_rows.append(
            Row(
                id=identify(content),
                split=split,
                label=label,
                label_source=None if label is None else "weak:tag" if by_rule else "human",
                weight=0.5 if by_rule else 1.0,
                confidence=0.75 if by_rule else 1.0,
                origin=f"rows.csv#{number}",
                license="CC BY 4.0" if number % 2 else None,
                attribution="A. Uthor, and others" if number % 3 else None,
                payload=payload,
            )
        )
    return labeled_rows


def workspace(folder: Path, modality: Modality) -> Path:
    """A workspace after scrape and validate."""
    folder.mkdir()
    (folder / "params.yaml").write_text(
        f"pipeline_version: 18\nmodality: {modality}\nscrape: {{sources: [{{kind: folder}}]}}\n"
    )
    for stage in ("scrape", "validate"):
        image_arrays = stage == "scrape" or modality == "text"
        with GenerationWriter(
            folder / "generations" / stage, stage=stage, modality=modality, images=image_arrays
        ) as writer:
            for row in rows(modality):
                writer.keep(row)
            writer.close(rows_in=len(rows(modality)), classes=sorted(CLASSES))
    return folder


def as_records(generation: Path) -> list[dict[str, Any]]:
    """The rows sorted by id."""
    frame = read(generation, COLUMNS)
    records: list[dict[str, Any]] = json.loads(frame.sort_values("id").to_json(orient="records"))
    return records


@pytest.mark.parametrize(
    ("modality", "form", "inner"),
    [
        ("image", DatasetForm.folders, ""),
        ("image", DatasetForm.table, ""),
        ("image", DatasetForm.huggingface, ""),
        ("image", DatasetForm.huggingface, "data"),
        ("text", DatasetForm.table, ""),
        ("text", DatasetForm.huggingface, ""),
        ("text", DatasetForm.huggingface, "data"),
    ],
)
def test_an_exported_dataset_is_read_back_unchanged(
    modality: Modality, form: DatasetForm, inner: str, tmp_path: Path
) -> None:
    """Class names that are not file names, texts that are formulas, rows without a label; from the folder and from its
    data/.
    """
    source_workspace = workspace(tmp_path / "work", modality)
    splits = ["train", "validation", "test", "pool"]
    export(source_workspace, tmp_path / "data", form=form, splits=splits, include=[], license_name="mit")
    data = tmp_path / "data" / inner
    lines = "\n".join(f"    - {line}" for line in _sources(data, modality, None, TableOptions()))
    params = data.parent / "params.yaml"
    params.write_text(f"pipeline_version: 18\nmodality: {modality}\nscrape:\n  sources:\n{lines}\n")
    scrape(load(data.parent).scrape, WorkspaceConfig(modality=modality), data=data, output=tmp_path / "back" / "scrape")
    assert as_records(tmp_path / "back" / "scrape") == as_records(source_workspace / "generations" / "scrape")


def test_augmented_and_synthetic_rows_of_a_table_are_rejected(tmp_path: Path) -> None:
    """A table does not have their parents, so rows of a held-out fold could be used for training under another name."""
    header = "text,id,label,label_source,weight,confidence,origin,license,attribution,stage"
    (tmp_path / "train.csv").write_text(
        f"{header}\na day,1,a,human,1.0,1.0,x,,,validate\na dya,2,a,human,1.0,1.0,x,,,augment\n"
    )
    source = TableSource(kind="table", path="train.csv")
    labels_and_reasons = [(item.label, item.reason) for item in read_table(source, tmp_path, "text", 2**20)]
    assert labels_and_reasons == [("a", None), ("a", "made_from_other_rows")]

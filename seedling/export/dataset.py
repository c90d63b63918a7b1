"""`seedling export`: writes the dataset as image folders, tables or a Hugging Face Hub dataset, with its card."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from seedling.config.params import load
from seedling.dataset.class_indices import index_by_class
from seedling.dataset.spreadsheet import is_formula
from seedling.errors import InputError
from seedling.files.writing import complete_or_absent, plain_names
from seedling.formats import DatasetForm
from seedling.media.image_export import image_for_others, suffix_of
from seedling.progress import Progress, counted, terminal
from seedling.report.cards import Dataset, dataset_card
from seedling.terminal.console import PrintableConsole

ROWS_PER_FILE = 2_000
UNLABELED = "_unlabeled"  # folder names of classes never begin with _

Convert = Callable[[bytes], bytes]  # an image file → the file to write


def _unchanged(encoded: bytes) -> bytes:
    return encoded


def export(
    workspace: Path,
    folder: Path,
    *,
    form: DatasetForm | None,
    splits: Sequence[str],
    include: Sequence[str],
    license_name: str,
    keep_metadata: bool = False,
) -> None:
    """Writes the dataset to a new folder.

    Args:
        workspace: the workspace.
        folder: the folder to create.
        form: the layout; None for folders of images or a table of texts.
        splits: the splits to export.
        include: the stages whose rows are also exported: augment, synthesize, pseudo_label.
        license_name: the license, for the card.
        keep_metadata: whether image files keep their metadata, such as place, author and camera; else they are
            written without it, and rotated upright.

    Raises:
        InputError: the folder is not empty, or the rows cannot have this layout.
    """
    params = load(workspace)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: choose another folder, or empty it.")
    chosen = form or (DatasetForm.folders if params.modality == "image" else DatasetForm.table)
    dataset = Dataset.of(workspace, splits, include)
    convert: Convert = _unchanged if keep_metadata else partial(image_for_others, max_megapixels=params.max_megapixels)
    if chosen is DatasetForm.folders and dataset.modality == "text":
        raise InputError("Texts cannot be exported as folders: use --as table or --as huggingface.")
    with complete_or_absent(folder) as partial_folder:
        with terminal("export") as progress:
            WRITERS[chosen](dataset, partial_folder, convert, progress)
        (partial_folder / "README.md").write_text(
            dataset_card(dataset, workspace.name, license_name, as_parquet=chosen is DatasetForm.huggingface),
            encoding="utf-8",
        )
    _print_summary(dataset, folder, chosen, include)


def _print_summary(dataset: Dataset, folder: Path, form: DatasetForm, include: Sequence[str]) -> None:
    counts = ", ".join(f"{count:,} {name}" for name, count in Counter(dataset.rows["split"]).items())
    PrintableConsole().print(
        f"{folder}: {len(dataset.rows):,} rows ({counts}), {form}.", highlight=False, soft_wrap=True
    )
    if form is not DatasetForm.huggingface and (formulas := sum(map(_has_formula, _csv_values(dataset)))):
        PrintableConsole().print(
            f"{formulas:,} rows have a cell that a spreadsheet would treat as a formula: open the .csv files with a "
            "program, or export --as huggingface.",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
    for stage in include:
        if not (dataset.rows["stage"] == stage).any():
            PrintableConsole().print(
                f"The dataset has no rows of {stage}: none were created, or the accepted model was not trained on them."
            )


def _csv_values(dataset: Dataset) -> Iterator[list[Any]]:
    """Yields the values of each row in the CSV files."""
    contents = dict(dataset.content(dataset.rows)) if dataset.modality == "text" else {}
    for row in _plain(dataset.rows):
        yield [*row.values(), contents.get(row["id"])]


def _has_formula(values: Sequence[Any]) -> bool:
    return any(map(is_formula, values))


def _as_folders(dataset: Dataset, folder: Path, convert: Convert, progress: Progress) -> None:
    """Writes split/class/id.png, which torchvision's ImageFolder and the Hub's imagefolder read, and metadata.csv."""
    rows_by_id = dataset.rows.set_index("id")
    names = plain_names(dataset.classes)
    file_names = {}
    for row_id, content in counted(dataset.content(dataset.rows), progress, "images", len(rows_by_id)):
        row: Any = rows_by_id.loc[row_id]
        encoded = convert(bytes(content))  # type: ignore[arg-type]
        label = UNLABELED if row["label"] is None else names[row["label"]]
        path = folder / row["split"] / label / f"{row_id}.{suffix_of(encoded)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)
        file_names[row_id] = path.relative_to(folder).as_posix()
    _write_csv(
        folder / "metadata.csv",
        [{"file_name": file_names[row["id"]], **row} for row in _plain(dataset.rows, "parent_ids")],
    )


def _as_table(dataset: Dataset, folder: Path, convert: Convert, progress: Progress) -> None:
    """Writes one CSV file per split, and the images to images/."""
    content = dict(counted(dataset.content(dataset.rows), progress, "rows", len(dataset.rows)))
    for split, rows in dataset.rows.groupby("split", sort=False):
        lines = []
        for row in _plain(rows):
            payload = content[row["id"]]
            if isinstance(payload, bytes):
                encoded = convert(payload)
                path = folder / "images" / f"{row['id']}.{suffix_of(encoded)}"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(encoded)
                lines.append({"image": path.relative_to(folder).as_posix(), **row})
            else:
                lines.append({"text": payload, **row})
        _write_csv(folder / f"{split}.csv", lines)


def _as_huggingface(dataset: Dataset, folder: Path, convert: Convert, progress: Progress) -> None:
    """Writes data/<split>-00000.parquet with the Hub's features, for `datasets.load_dataset(folder)`."""
    schema = _huggingface_schema(dataset)
    content_column = "image" if dataset.modality == "image" else "text"
    label_to_index = index_by_class(dataset.classes)
    (folder / "data").mkdir()
    done = 0
    for split, rows in dataset.rows.groupby("split", sort=False):
        for part, first in enumerate(range(0, len(rows), ROWS_PER_FILE)):
            rows_of_file = rows.iloc[first : first + ROWS_PER_FILE]
            content = dict(dataset.content(rows_of_file))
            lines = []
            for row in _plain(rows_of_file):
                payload = content[row["id"]]
                cell: Any = payload
                if isinstance(payload, bytes):
                    encoded = convert(payload)
                    cell = {"bytes": encoded, "path": f"{row['id']}.{suffix_of(encoded)}"}
                label_index = None if row["label"] is None else label_to_index[row["label"]]
                lines.append({**row, "label": label_index, content_column: cell})
            pq.write_table(
                pa.Table.from_pylist(lines, schema=schema),
                folder / "data" / f"{split}-{part:05d}.parquet",
                compression="zstd",
            )
            done += len(rows_of_file)
            progress("rows", done, len(dataset.rows))


def _huggingface_schema(dataset: Dataset) -> pa.Schema:
    """The Arrow schema, with the Hub's description of its features as metadata."""
    is_image = dataset.modality == "image"
    content_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if is_image else pa.string()
    content_column = "image" if is_image else "text"
    texts = ["id", "label_source", "origin", "license", "attribution", "stage"]
    schema = pa.schema(
        [
            (content_column, content_type),
            ("label", pa.int64()),
            *((name, pa.string()) for name in texts),
            ("weight", pa.float32()),
            ("confidence", pa.float32()),
        ]
    )
    features: dict[str, Any] = {name: {"dtype": "string", "_type": "Value"} for name in texts}
    features |= {name: {"dtype": "float32", "_type": "Value"} for name in ("weight", "confidence")}
    features |= {"label": {"names": dataset.classes, "_type": "ClassLabel"}}
    features |= {content_column: {"_type": "Image"} if is_image else {"dtype": "string", "_type": "Value"}}
    ordered_features = {name: features[name] for name in schema.names}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": ordered_features}})})


WRITERS = {DatasetForm.folders: _as_folders, DatasetForm.table: _as_table, DatasetForm.huggingface: _as_huggingface}


def _plain(rows: pd.DataFrame, *without: str) -> Iterator[dict[str, Any]]:
    for row in rows.drop(columns=list(without or ("split", "parent_ids"))).to_dict("records"):
        yield {str(name): None if value is None or value != value else _one_line(value) for name, value in row.items()}


def _one_line(value: Any) -> Any:
    """Replaces carriage returns, which the csv module does not quote and readers treat as the end of a row."""
    return value.replace("\r", " ") if isinstance(value, str) else value


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

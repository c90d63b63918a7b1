"""FiftyOne's dataset folders: `FiftyOneImageClassificationDataset` is written, and it and `FiftyOneDataset` are read.

Formats: https://docs.voxel51.com/user_guide/export_datasets. labels.json maps the name of each file in data/ to its
label and attributes. A row without a label has the model's suggestion as its label, with a confidence. A person edits
the label, or sets the attribute `answer`.

    form = fiftyone.types.FiftyOneImageClassificationDataset
    dataset = fiftyone.Dataset.from_dir(folder, form)
    dataset.export(folder, form, label_field="ground_truth", include_confidence=True, include_attributes=True)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from seedling.errors import InputError
from seedling.media.images import SUFFIXES
from seedling.review.exchange.csv_table import read_content
from seedling.review.exchange.exported_rows import ExportedRow
from seedling.review.exchange.external_rows import ExternalRow, image_files, row_ids_in
from seedling.review.exchange.table_rows import EXPORTED, LABEL, table_row, text_of

LABELS_FILE, SAMPLES_FILE, IMAGE_FOLDER = "labels.json", "samples.json", "data"
# Names that FiftyOne uses for its own fields of a label
RENAMED = {"id": "seedling_id", "label": None, "confidence": None, "tags": None, "logits": None}
REVIEWED_FIELDS = (LABEL, "ground_truth", "labels", "classification")  # of samples, the likeliest first
CLASSIFICATION = "Classification"
SEVERAL = "several_labels"


def write(rows: Iterable[ExportedRow], folder: Path, classes: Sequence[str]) -> None:
    """Write the images and labels.json, whose labels are written one after the other."""
    (folder / IMAGE_FOLDER).mkdir()
    with (folder / LABELS_FILE).open("w", encoding="utf-8") as file:
        file.write(f'{{"classes": {json.dumps(list(classes), ensure_ascii=False)}, "labels": {{')
        for number, row in enumerate(rows):
            row.write_image(folder / IMAGE_FOLDER)
            file.write(",\n" if number else "\n")
            file.write(f"{json.dumps(row.id)}: {json.dumps(_target(row, classes), ensure_ascii=False)}")
        file.write("\n}}\n")


def _target(row: ExportedRow, classes: Sequence[str]) -> dict[str, Any] | None:
    """The label of a row with its attributes; None without a label and a suggestion."""
    label = row.label if row.label is not None else row.suggestion
    if label is None:
        return None
    fields = row.fields()
    attributes = {RENAMED.get(name, name): value for name, value in fields.items() if value is not None}
    attributes.pop(None, None)
    confidence = row.suggestion_probability if row.label is None else None
    return {
        "label": classes.index(label),
        "confidence": confidence,
        "attributes": {**attributes, EXPORTED: label},
    }


def read(path: Path) -> Iterator[ExternalRow]:
    """Yield the labels of labels.json or samples.json, or of a folder with one of them.

    Raises InputError if the file is damaged or in another format.
    """
    names = (LABELS_FILE, SAMPLES_FILE)
    file = next((path / name for name in names if (path / name).is_file()), path) if path.is_dir() else path
    content = _json(file)
    if isinstance(content.get("labels"), dict):
        yield from _labels(content, file)
    elif isinstance(content.get("samples"), list):
        yield from _samples(content["samples"], file)
    else:
        raise InputError(
            f"{file} has neither `labels` nor `samples`: export the dataset as FiftyOneImageClassificationDataset."
        )


def _json(file: Path) -> dict[str, Any]:
    if file.is_dir():
        raise InputError(f"{file} has neither {LABELS_FILE} nor {SAMPLES_FILE}: name a folder that FiftyOne exported.")
    try:
        content = json.loads(read_content(file))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not complete JSON ({str(error)[:200]}): export the dataset again.") from error
    return content if isinstance(content, dict) else {}


def _labels(content: Mapping[str, Any], file: Path) -> Iterator[ExternalRow]:
    classes = content.get("classes")
    names = classes if isinstance(classes, list) else []
    _check_attributes(content["labels"], file)
    for key, target in content["labels"].items():
        targets = target if isinstance(target, list) else [target]
        contents = partial(_images, key, file.parent)
        if len(targets) > 1:
            row_ids = row_ids_in(key)
            yield ExternalRow(_position(key), row_ids, contents, unusable=Counter({SEVERAL: 1}))
            continue
        values = _values(targets[0] if targets else None, names)
        yield table_row(values | {"file_name": key}, _position(key), contents)


def _check_attributes(targets: Mapping[str, Any], file: Path) -> None:
    """Raise InputError for Seedling's images without attributes: labels of people and of models look alike."""
    labels = {key: label for key, label in targets.items() if row_ids_in(key) and label is not None}
    if labels and not any(isinstance(label, dict) and "attributes" in label for label in labels.values()):
        raise InputError(
            f"{file} has no attributes, without which labels that a model suggested look like those of people: export "
            "the dataset again with include_attributes=True and include_confidence=True."
        )


def _position(key: str) -> str:
    return f"image {key[:100]}"


def _values(target: Any, classes: Sequence[Any]) -> dict[str, Any]:
    """The values of a label as of a row of a table. A label with a confidence and without attributes is a model's."""
    details = target if isinstance(target, dict) else {"label": target}
    label = details.get("label")
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(classes):
        label = classes[label]
    attributes = details.get("attributes")
    values = dict(attributes) if isinstance(attributes, dict) else {}
    return _without_predictions(values | {LABEL: label}, details.get("confidence"))


def _without_predictions(values: dict[str, Any], confidence: Any) -> dict[str, Any]:
    """The values with the label of a model as a suggestion.

    A label with a confidence is a model's, unless it was exported and a person has changed it or given an answer.
    """
    is_exported = bool(values.get(EXPORTED))
    is_edited = is_exported and text_of(values.get(LABEL)) != text_of(values[EXPORTED])
    if confidence is not None and not is_exported:
        return {**values, LABEL: None, "suggestion": values.get(LABEL)}
    if is_edited or not is_exported:
        return values
    return {**values, LABEL: values[EXPORTED]}


def _images(key: str, folder: Path) -> Iterator[bytes]:
    """Yield the image of a key: the path of a file in data/, with or without its suffix."""
    for suffix in ("", *sorted(SUFFIXES)):
        for content in image_files(f"{IMAGE_FOLDER}/{key}{suffix}", folder):
            yield content
            return


def _samples(samples: Sequence[Any], file: Path) -> Iterator[ExternalRow]:
    """Yield the rows of a FiftyOneDataset: one field of each sample has the label that people gave."""
    reviewed = _reviewed_field(samples, file)
    for number, sample in enumerate(samples, start=1):
        if not isinstance(sample, dict):
            raise InputError(f"{file}: sample {number} is not an object: export the dataset again.")
        filepath = str(sample.get("filepath") or "")
        others = [name for name, value in sample.items() if _is_label(value) and name != reviewed]
        predicted = next((sample[name].get("label") for name in others), None)
        label = sample.get(reviewed) if reviewed else None
        attributes = label if isinstance(label, dict) else {}
        values = {**_simple(sample), **_simple(attributes), "file_name": filepath}
        values = _without_predictions({**values, LABEL: attributes.get("label")}, attributes.get("confidence"))
        values["suggestion"] = values.get("suggestion") or predicted
        yield table_row(values, f"sample {number}", partial(image_files, filepath, file.parent))


def _simple(values: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in values.items() if isinstance(value, str | int | float)}


def _is_label(value: Any) -> bool:
    return isinstance(value, dict) and value.get("_cls") == CLASSIFICATION


def _reviewed_field(samples: Iterable[Any], file: Path) -> str | None:
    """The field with the labels of people. Raises InputError if several fields may be."""
    has_confidence: dict[str, bool] = {}
    for sample in samples:
        for name, value in sample.items() if isinstance(sample, dict) else ():
            if _is_label(value):
                has_confidence[name] = has_confidence.get(name, False) or value.get("confidence") is not None
    for name in REVIEWED_FIELDS:
        if name in has_confidence:
            return name
    candidates = [name for name, is_predicted in has_confidence.items() if not is_predicted]
    if len(candidates) > 1:
        raise InputError(
            f"{file} has several fields with labels ({', '.join(sorted(candidates)[:10])}): rename the one with the "
            "reviewed labels to `ground_truth`, and export the dataset again."
        )
    return candidates[0] if candidates else None

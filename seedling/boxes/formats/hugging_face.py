"""Hugging Face's layout of a folder of images: metadata.jsonl with `file_name` and `objects` (bbox, category, …)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from seedling.boxes.annotations import (
    AnnotatedImage,
    AnnotatedObject,
    AnnotationSet,
    Completeness,
    ImageIndex,
    finite_box,
)

FORMAT = "hugging_face"
CATEGORY_KEYS = ("category", "categories", "label", "labels")
COMPLETENESS = frozenset({"yes", "no", "unknown"})


def read_metadata(paths: Sequence[Path], index: ImageIndex, names: Sequence[str] = ()) -> AnnotationSet:
    """Read files of one JSON object per line. names: of the categories, if the files have their numbers."""
    annotations = AnnotationSet(FORMAT)
    for name in names:
        annotations.add_category(name)
    for path in paths:
        for where, row in _rows(annotations, path):
            file_name = row.get("file_name")
            file = index.find(str(file_name)) if file_name else None
            if file is None:
                annotations.report("missing_image", where, str(file_name))
                continue
            objects = row.get("objects")
            annotations.add(
                AnnotatedImage(
                    file,
                    tuple(_objects(annotations, where, objects, names)) if isinstance(objects, dict) else (),
                    _pixels(row.get("width")),
                    _pixels(row.get("height")),
                    _completeness(row),
                    row.get("split") if isinstance(row.get("split"), str) else None,
                    annotation=where,
                )
            )
    return annotations


def _rows(annotations: AnnotationSet, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path.name}, line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                annotations.report("not_json", where, str(error))
                continue
            if isinstance(row, dict):
                yield where, row
            else:
                annotations.report("not_an_annotation", where)


def _completeness(row: Mapping[str, Any]) -> Completeness:
    """As the row states it, or "yes" if it has a list of objects."""
    stated = row.get("complete")
    if stated in COMPLETENESS:
        return cast("Completeness", stated)
    return "unknown" if row.get("objects") is None else "yes"


def _pixels(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _objects(
    annotations: AnnotationSet, where: str, objects: Mapping[str, Any], names: Sequence[str]
) -> Iterator[AnnotatedObject]:
    boxes = objects.get("bbox") or []
    categories: list[Any] = next((objects[key] for key in CATEGORY_KEYS if isinstance(objects.get(key), list)), [])
    if not isinstance(boxes, list) or len(boxes) != len(categories):
        annotations.report("lists_of_different_length", where, f"{len(categories)} categories")
        return
    for number, (values, category) in enumerate(zip(boxes, categories, strict=True)):
        box = finite_box(values) if isinstance(values, list) else None
        if box is None:
            annotations.report("box_not_four_numbers", f"{where}, object {number + 1}", str(values)[:80])
            continue
        name = _name(category, names)
        if name is None:
            annotations.report("class_index_beyond_names", f"{where}, object {number + 1}", str(category)[:80])
            continue
        confidence = _item(objects, "confidence", number, 1.0)
        yield AnnotatedObject(
            name,
            box,
            str(_item(objects, "source", number, "human")),
            float(confidence) if isinstance(confidence, int | float) else 1.0,
            is_crowd=bool(_item(objects, "iscrowd", number, False)),
            is_difficult=bool(_item(objects, "difficult", number, False)),
            mask=_item(objects, "mask", number, None),
        )


def _name(category: object, names: Sequence[str]) -> str | None:
    if isinstance(category, int) and not isinstance(category, bool) and names:
        return names[category] if 0 <= category < len(names) else None
    return str(category).strip() or None


def _item(objects: Mapping[str, Any], key: str, number: int, default: Any) -> Any:
    values = objects.get(key)
    value = values[number] if isinstance(values, list) and number < len(values) else None
    return default if value is None else value


def write_metadata(images: Sequence[tuple[AnnotatedImage, int, int]], path: Path) -> None:
    """Write metadata.jsonl. images: each with the width and height of its pixels."""
    has_masks = any(annotated.mask is not None for image, *_ in images for annotated in image.objects)
    with path.open("w", encoding="utf-8") as file:
        for image, width, height in images:
            objects: dict[str, list[Any]] = {
                "id": list(range(1, len(image.objects) + 1)),
                "bbox": [list(annotated.box) for annotated in image.objects],
                "category": [annotated.category for annotated in image.objects],
                "area": [annotated.box[2] * annotated.box[3] for annotated in image.objects],
                "iscrowd": [annotated.is_crowd for annotated in image.objects],
                "difficult": [annotated.is_difficult for annotated in image.objects],
                "source": [annotated.source for annotated in image.objects],
                "confidence": [annotated.confidence for annotated in image.objects],
            }
            if has_masks:
                objects["mask"] = [annotated.mask for annotated in image.objects]
            row = {"file_name": image.file, "width": width, "height": height, "complete": image.complete}
            if image.split is not None:
                row["split"] = image.split
            file.write(json.dumps({**row, "objects": objects}, ensure_ascii=False) + "\n")

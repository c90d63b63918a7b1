"""COCO's JSON: `images`, `annotations` and `categories` in one file (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seedling.boxes.annotations import (
    AnnotatedImage,
    AnnotatedObject,
    AnnotationSet,
    Box,
    ImageIndex,
    box_of_points,
    finite_box,
)
from seedling.boxes.masks import box_of_mask, compressed_mask, mask_pixels
from seedling.errors import InputError

FORMAT = "coco"
SECTIONS = ("images", "annotations")


def is_coco(content: object) -> bool:
    """Whether the parsed JSON has the sections of a COCO file."""
    return isinstance(content, dict) and all(isinstance(content.get(name), list) for name in SECTIONS)


def read_coco(contents: Mapping[Path, Any], index: ImageIndex) -> AnnotationSet:
    """Read COCO files. contents: path → the parsed file, for which `is_coco` holds."""
    annotations = AnnotationSet(FORMAT)
    for path, content in contents.items():
        _add_file(annotations, path.name, content, index)
    return annotations


def load_json(path: Path) -> Any:
    """Parse a JSON file. Raises InputError with the line of the error."""
    try:
        return json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}. Export it again.") from error


def _add_file(annotations: AnnotationSet, where: str, content: Mapping[str, Any], index: ImageIndex) -> None:
    names = _category_names(annotations, where, content.get("categories", []))
    files, sizes = _image_files(annotations, where, content["images"], index)
    objects: dict[str, list[AnnotatedObject]] = {file: [] for file in files.values()}
    for number, entry in enumerate(content["annotations"]):
        position = f"{where}, annotation {entry.get('id', number) if isinstance(entry, dict) else number}"
        if not isinstance(entry, dict):
            annotations.report("not_an_annotation", position)
        elif not _is_id(entry.get("category_id")) or entry["category_id"] not in names:
            annotations.report("unknown_category", position, f"category_id {entry.get('category_id')}")
        elif not _is_id(entry.get("image_id")) or entry["image_id"] not in files:
            annotations.report("object_of_missing_image", position, f"image_id {entry.get('image_id')}")
        else:
            file = files[entry["image_id"]]
            if annotated := _object(annotations, position, entry, names[entry["category_id"]], sizes[file]):
                objects[file].append(annotated)
    for file, of_file in objects.items():
        width, height = sizes[file]
        annotations.add(AnnotatedImage(file, tuple(of_file), width, height, "yes", annotation=where))


def _category_names(annotations: AnnotationSet, where: str, entries: object) -> dict[Any, str]:
    """Category id → name; ids may begin anywhere and have gaps."""
    names: dict[Any, str] = {}
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or not _is_id(entry.get("id")) or not str(entry.get("name", "")).strip():
            annotations.report("category_without_id_or_name", where, str(entry)[:80])
        elif entry["id"] in names and names[entry["id"]] != entry["name"]:
            detail = f"id {entry['id']}: '{names[entry['id']]}' and '{entry['name']}'"
            annotations.report("duplicate_category_id", where, detail)
        else:
            names[entry["id"]] = str(entry["name"]).strip()
            annotations.add_category(names[entry["id"]])
    return names


def _image_files(
    annotations: AnnotationSet, where: str, entries: Sequence[Any], index: ImageIndex
) -> tuple[dict[Any, str], dict[str, tuple[int | None, int | None]]]:
    """Image id → file, and file → stated width and height. An id that two images have belongs to the first."""
    files: dict[Any, str] = {}
    sizes: dict[str, tuple[int | None, int | None]] = {}
    for entry in entries:
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not _is_id(entry.get("id")):
            annotations.report("image_without_id_or_name", where, str(entry)[:80])
            continue
        file = index.find(name)
        if file is None:
            annotations.report("missing_image", where, name)
        elif entry["id"] in files:
            annotations.report("duplicate_image_id", where, f"id {entry['id']}: {files[entry['id']]} and {file}")
        elif file in sizes:
            annotations.report("annotated_twice", where, f"{file} has several entries in `images`")
        else:
            files[entry["id"]] = file
            sizes[file] = (_pixels(entry.get("width")), _pixels(entry.get("height")))
    return files, sizes


def _is_id(value: object) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _pixels(value: object) -> int | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return int(value) if value > 0 else None


def _object(
    annotations: AnnotationSet, where: str, entry: Mapping[str, Any], category: str, size: tuple[int | None, int | None]
) -> AnnotatedObject | None:
    """The object of an annotation; None, and a problem, if it has neither a box nor a mask that can be read."""
    mask = None
    segmentation = entry.get("segmentation")
    if segmentation:
        try:
            mask = compressed_mask(segmentation, size)
        except ValueError as error:
            annotations.report("mask_not_readable", where, str(error))
    box = finite_box(entry["bbox"]) if isinstance(entry.get("bbox"), list) else None
    if box is None and entry.get("bbox") not in (None, []):
        annotations.report("box_not_four_numbers", where, str(entry["bbox"])[:80])
        return None
    if box is None:
        box = _box_of_segmentation(segmentation) if mask is None else box_of_mask(mask)
    if box is None:
        annotations.report("no_box", where, "neither bbox nor segmentation")
        return None
    confidence = entry.get("score", 1.0)
    return AnnotatedObject(
        category,
        box,
        confidence=float(confidence) if isinstance(confidence, int | float) and 0 <= confidence <= 1 else 1.0,
        is_crowd=bool(entry.get("iscrowd", 0)),
        is_difficult=bool(entry.get("ignore", 0)),
        mask=mask,
    )


def _box_of_segmentation(segmentation: object) -> Box | None:
    """The box around all polygons of a segmentation."""
    if not isinstance(segmentation, list):
        return None
    points = [
        (float(x), float(y))
        for polygon in segmentation
        if isinstance(polygon, list) and all(isinstance(value, int | float) for value in polygon)
        for x, y in zip(polygon[::2], polygon[1::2], strict=False)
    ]
    return box_of_points(points)


def write_coco(images: Sequence[tuple[AnnotatedImage, int, int]], categories: Sequence[str], path: Path) -> None:
    """Write a COCO file. images: each with the width and height of its pixels; category ids begin at 1."""
    ids = {name: number for number, name in enumerate(categories, start=1)}
    entries, number = [], 0
    for image_id, (image, *_) in enumerate(images, start=1):
        for annotated in image.objects:
            number += 1
            entry: dict[str, Any] = {
                "id": number,
                "image_id": image_id,
                "category_id": ids[annotated.category],
                "bbox": list(annotated.box),
                "area": annotated.box[2] * annotated.box[3],
                "iscrowd": int(annotated.is_crowd),
            }
            if annotated.mask is not None:
                entry["segmentation"] = json.loads(annotated.mask)
                entry["area"] = mask_pixels(annotated.mask)
            if annotated.is_difficult:
                entry["ignore"] = 1
            if annotated.confidence < 1.0:
                entry["score"] = annotated.confidence
            entries.append(entry)
    content = {
        "images": [
            {"id": image_id, "file_name": image.file, "width": width, "height": height}
            for image_id, (image, width, height) in enumerate(images, start=1)
        ],
        "annotations": entries,
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

"""TensorFlow's table, with a row per object: filename, width, height, class, xmin, ymin, xmax, ymax."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from seedling.boxes.annotations import AnnotatedImage, AnnotatedObject, AnnotationSet, ImageIndex, finite_box
from seedling.errors import InputError

FORMAT = "csv"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
COLUMNS = ("filename", "width", "height", "class", *CORNERS)


def is_table_of_boxes(header: Sequence[str]) -> bool:
    """Whether the columns of a table are those of a table of boxes."""
    return {"filename", "class", *CORNERS} <= {name.strip().casefold() for name in header}


def read_csv(paths: Sequence[Path], index: ImageIndex) -> AnnotationSet:
    """Read tables of boxes. A row without class and corners is of an image without objects.

    Raises InputError for a table that lacks a column.
    """
    annotations = AnnotationSet(FORMAT)
    images: dict[str, AnnotatedImage] = {}
    for path in paths:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = [name.strip().casefold() for name in reader.fieldnames or []]
            if not is_table_of_boxes(reader.fieldnames):
                raise InputError(
                    f"{path} needs the columns {', '.join(COLUMNS)}; it has {', '.join(reader.fieldnames)}."
                )
            try:
                for number, row in enumerate(reader, start=2):
                    _add_row(annotations, images, f"{path.name}, line {number}", row, index)
            except csv.Error as error:
                annotations.report(
                    "not_a_table", f"{path.name}, line {reader.line_num}", f"{error}; the rest is not read"
                )
    for image in images.values():
        annotations.add(image)
    return annotations


def _add_row(
    annotations: AnnotationSet,
    images: dict[str, AnnotatedImage],
    where: str,
    row: dict[str, str | None],
    index: ImageIndex,
) -> None:
    name = (row["filename"] or "").strip()
    file = index.find(name) if name else None
    if file is None:
        annotations.report("missing_image", where, name)
        return
    image = images.setdefault(
        file, AnnotatedImage(file, (), _pixels(row.get("width")), _pixels(row.get("height")), "yes", annotation=where)
    )
    category = (row["class"] or "").strip()
    if not category and not any((row[corner] or "").strip() for corner in CORNERS):
        return
    corners = finite_box([row[corner] for corner in CORNERS])
    if not category or corners is None:
        annotations.report("box_not_four_numbers" if category else "object_without_name", where)
        return
    left, top, right, bottom = corners
    annotated = AnnotatedObject(category, (left, top, right - left, bottom - top))
    images[file] = replace(image, objects=(*image.objects, annotated))


def _pixels(text: str | None) -> int | None:
    try:
        value = int(float(text or ""))
    except (ValueError, OverflowError):
        return None
    return value if value > 0 else None


def write_csv(images: Sequence[tuple[AnnotatedImage, int, int]], path: Path) -> None:
    """Write a table of boxes. images: each with the width and height of its pixels."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for image, width, height in images:
            if not image.objects:
                writer.writerow([image.file, width, height, "", "", "", "", ""])
            for annotated in image.objects:
                x, y, box_width, box_height = annotated.box
                corners = (x, y, x + box_width, y + box_height)
                writer.writerow(
                    [image.file, width, height, annotated.category, *(f"{corner:.10g}" for corner in corners)]
                )

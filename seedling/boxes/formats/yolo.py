"""YOLO: one text file per image, with a row `class center_x center_y width height` per object, in shares of the image.

The names of the classes are in data.yaml, or in classes.txt. A row of six numbers ends with a confidence. A longer row
is a polygon, whose smallest upright box counts. If every row of a dataset has nine numbers, they are rotated boxes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedling.boxes.annotations import (
    AnnotatedImage,
    AnnotatedObject,
    AnnotationSet,
    Box,
    FrameOf,
    ImageIndex,
    box_of_points,
)
from seedling.errors import InputError
from seedling.files.yaml_files import read_yaml_file

FORMAT = "yolo"
NAMES_FILES = ("classes.txt", "obj.names", "names.txt")
NUMBERS_OF_BOX, NUMBERS_WITH_CONFIDENCE, NUMBERS_OF_ROTATED = 5, 6, 9
MAX_CLASSES = 10_000
MAX_LINE_CHARACTERS = 10_000
NUMBER = re.compile(r"[-+]?[\d.]+([eE][-+]?\d+)?")
ROUNDING_SHARE = 1e-3  # coordinates over 1 by less than this are rounding


def read_names(path: Path) -> list[str]:
    """The names of the classes, by index, of a data.yaml or a text file with a name per line.

    Raises InputError if there are none.
    """
    if path.suffix not in {".yaml", ".yml"}:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        return [line.strip() for line in lines if line.strip()]
    content: Any = read_yaml_file(path)
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and all(isinstance(key, int) and 0 <= key < MAX_CLASSES for key in names):
        names = [str(names.get(index, f"class {index}")) for index in range(max(names, default=-1) + 1)]
    if not isinstance(names, list) or not names:
        raise InputError(f"{path} has no `names`: list the names of the classes there, in the order of their numbers.")
    return [str(name).strip() for name in names]


def is_label_file(path: Path, index: ImageIndex) -> bool:
    """Whether a text file belongs to an image, by its name, or has a row of at least five numbers."""
    if _image_of(path, index) is not None:
        return True
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        words = file.readline(MAX_LINE_CHARACTERS).split()
    return len(words) >= NUMBERS_OF_BOX and all(NUMBER.fullmatch(word) for word in words)


def _image_of(path: Path, index: ImageIndex) -> str | None:
    parts = ["images" if part == "labels" else part for part in path.with_suffix("").parts]
    return index.find_stem("/".join(parts)) or index.find_stem(path.stem)


def read_yolo(
    labels: Sequence[Path],
    index: ImageIndex,
    names: Sequence[str],
    frame_of: FrameOf,
    *,
    hulls_of_rotated: bool = False,
) -> AnnotationSet:
    """Read the text files of a dataset; one that is empty is of an image without objects.

    hulls_of_rotated: whether a rotated box counts as the smallest upright box around it.
    """
    annotations = AnnotationSet(FORMAT)
    for name in names:
        annotations.add_category(name)
    files = [_rows_of(annotations, path, index) for path in labels]
    lengths = {len(row.values) for rows in files if rows for row in rows.rows}
    is_rotated = lengths == {NUMBERS_OF_ROTATED}
    for rows in filter(None, files):
        frame = frame_of(rows.file)
        if frame is None:
            annotations.report("image_not_readable", rows.name, rows.file)
            continue
        size = (frame.width, frame.height)
        reader = _RowReader(annotations, names, size, is_rotated=is_rotated and not hulls_of_rotated)
        objects = tuple(annotated for row in rows.rows if (annotated := reader.object_of(row)))
        annotations.add(AnnotatedImage(rows.file, objects, *size, complete="yes", annotation=rows.name))
    return annotations


@dataclass(frozen=True, slots=True)
class _LabelRow:
    where: str
    values: list[float]


@dataclass(frozen=True, slots=True)
class _LabelFile:
    name: str
    file: str
    rows: list[_LabelRow]


def _rows_of(annotations: AnnotationSet, path: Path, index: ImageIndex) -> _LabelFile | None:
    file = _image_of(path, index)
    if file is None:
        annotations.report("missing_image", path.name, path.stem)
        return None
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        try:
            values = [float(word) for word in line.split()]
        except ValueError:
            annotations.report("not_numbers", where, line.strip()[:80])
            continue
        if not all(map(math.isfinite, values)):
            annotations.report("not_numbers", where, line.strip()[:80])
        else:
            rows.append(_LabelRow(where, values))
    return _LabelFile(path.name, file, rows)


@dataclass(frozen=True, slots=True)
class _RowReader:
    annotations: AnnotationSet
    names: Sequence[str]
    size: tuple[int, int]
    is_rotated: bool

    def object_of(self, row: _LabelRow) -> AnnotatedObject | None:
        """The object of a row; None, and a problem, if it cannot be used."""
        category, *numbers = row.values
        if category != int(category) or not 0 <= category < len(self.names):
            detail = f"class {category:g}, and the names end at {len(self.names) - 1}"
            self.annotations.report("class_index_beyond_names", row.where, detail)
            return None
        if self.is_rotated:
            self.annotations.report("rotated_box", row.where)
            return None
        confidence = 1.0
        if len(row.values) == NUMBERS_WITH_CONFIDENCE:
            confidence = numbers.pop()
            if not 0 <= confidence <= 1:
                self.annotations.report("sixth_number_not_a_confidence", row.where, f"{confidence:g}")
                return None
        box = self._box(row, numbers)
        return None if box is None else AnnotatedObject(self.names[int(category)], box, confidence=confidence)

    def _box(self, row: _LabelRow, numbers: Sequence[float]) -> Box | None:
        width, height = self.size
        if len(numbers) != NUMBERS_OF_BOX - 1 and (len(numbers) < 4 or len(numbers) % 2):
            self.annotations.report("wrong_number_of_values", row.where, f"{len(row.values)} numbers")
            return None
        if max(numbers) > 1 + ROUNDING_SHARE or min(numbers) < -ROUNDING_SHARE:
            self.annotations.report("coordinates_over_1", row.where, f"{max(numbers, key=abs):g}")
            return None
        if len(numbers) == NUMBERS_OF_BOX - 1:
            center_x, center_y, box_width, box_height = numbers
            left, top = (center_x - box_width / 2) * width, (center_y - box_height / 2) * height
            return (left, top, box_width * width, box_height * height)
        points = [(x * width, y * height) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]
        box = box_of_points(points)
        if box is None:
            self.annotations.report("polygon_of_two_points", row.where)
        return box


def write_yolo(image: AnnotatedImage, width: int, height: int, categories: Sequence[str], path: Path) -> None:
    """Write the text file of an image; an empty one for an image without objects."""
    lines = []
    for annotated in image.objects:
        x, y, box_width, box_height = annotated.box
        shares = (
            (x + box_width / 2) / width,
            (y + box_height / 2) / height,
            box_width / width,
            box_height / height,
        )
        numbers = [str(categories.index(annotated.category)), *(f"{share:.10g}" for share in shares)]
        if annotated.confidence < 1.0:
            numbers.append(f"{annotated.confidence:.6g}")
        lines.append(" ".join(numbers) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")


def write_data_yaml(categories: Sequence[str], folders: dict[str, str], path: Path) -> None:
    """Write data.yaml. folders: split (train, val or test) → its folder of images, relative to data.yaml."""
    from ruamel.yaml import YAML

    with path.open("w", encoding="utf-8") as file:
        YAML().dump({"path": ".", **folders, "names": dict(enumerate(categories))}, file)

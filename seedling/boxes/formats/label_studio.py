"""Label Studio's JSON: a list of tasks with rectangles in percent of the image (https://labelstud.io/guide/export)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from seedling.boxes.annotations import AnnotatedImage, AnnotatedObject, AnnotationSet, Box, ImageIndex, box_of_points

FORMAT = "label_studio"
KINDS = ("rectanglelabels", "polygonlabels")


def is_label_studio(content: object) -> bool:
    """Whether the parsed JSON is a list of tasks with annotations."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(
            isinstance(task, dict) and isinstance(task.get("data"), dict) and "annotations" in task
            for task in content[:5]
        )
    )


def read_label_studio(
    contents: Mapping[Path, Any], index: ImageIndex, *, hulls_of_rotated: bool = False
) -> AnnotationSet:
    """Read exports of tasks. Of several annotations of a task, the first that was not canceled counts.

    contents: path → the parsed file, for which `is_label_studio` holds.
    """
    annotations = AnnotationSet(FORMAT)
    for path, tasks in contents.items():
        for number, task in enumerate(tasks, start=1):
            where = f"{path.name}, task {task.get('id', number) if isinstance(task, dict) else number}"
            if isinstance(task, dict) and isinstance(task.get("data"), dict):
                _add_task(annotations, where, task, index, hulls_of_rotated)
            else:
                annotations.report("not_an_annotation", where)
    return annotations


def _add_task(
    annotations: AnnotationSet, where: str, task: Mapping[str, Any], index: ImageIndex, hulls_of_rotated: bool
) -> None:
    addresses = [value for value in task["data"].values() if isinstance(value, str)]
    file = next((match for value in addresses for name in _names_of(value) if (match := index.find(name))), None)
    if file is None:
        annotations.report("missing_image", where, addresses[0][:200] if addresses else "")
        return
    finished = [
        each
        for each in (task["annotations"] if isinstance(task.get("annotations"), list) else [])
        if isinstance(each, dict) and not each.get("was_cancelled") and isinstance(each.get("result"), list)
    ]
    if not finished:
        annotations.add(AnnotatedImage(file, complete="unknown", annotation=where))
        return
    objects, size = [], (None, None)
    for number, region in enumerate(finished[0]["result"], start=1):
        if not isinstance(region, dict) or not isinstance(region.get("value"), dict):
            continue
        size = (region.get("original_width"), region.get("original_height"))
        objects += _objects(annotations, f"{where}, region {number}", region, hulls_of_rotated)
    width, height = (side if isinstance(side, int) else None for side in size)
    annotations.add(AnnotatedImage(file, tuple(objects), width, height, "yes", annotation=where))


def _names_of(address: str) -> list[str]:
    """The paths that an address may mean: that of a local file is in its query."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return [address]
    local = parse_qs(parts.query).get("d", [])
    name = unquote(parts.path)
    _, dash, after = name.rpartition("/")[2].partition("-")  # an uploaded file has a random prefix
    return [*local, name, *([after] if dash else [])]


def _objects(
    annotations: AnnotationSet, where: str, region: Mapping[str, Any], hulls_of_rotated: bool
) -> list[AnnotatedObject]:
    value, kind = region["value"], region.get("type")
    labels = value.get(kind) if kind in KINDS else None
    if not isinstance(labels, list) or not labels:
        if kind in KINDS:
            annotations.report("object_without_name", where)
        elif kind not in {"choices", "textarea", "rating"}:
            annotations.report("region_of_another_kind", where, str(kind))
        return []
    try:
        width, height = float(region["original_width"]), float(region["original_height"])
        if kind == "rectanglelabels":
            box = _rectangle(value, width, height, hulls_of_rotated)
        else:
            box = _polygon(value, width, height)
    except (KeyError, TypeError, ValueError) as error:
        is_rotated = isinstance(error, ValueError) and str(error) == "rotated"
        annotations.report("rotated_box" if is_rotated else "box_not_four_numbers", where, str(error))
        return []
    return [AnnotatedObject(str(label).strip(), box) for label in labels if str(label).strip()]


def _rectangle(value: Mapping[str, Any], width: float, height: float, hulls_of_rotated: bool) -> Box:
    """The box in pixels. Raises ValueError("rotated") for a rotated one, unless hulls are wanted."""
    x, y = float(value["x"]) * width / 100, float(value["y"]) * height / 100
    box_width, box_height = float(value["width"]) * width / 100, float(value["height"]) * height / 100
    if not all(map(math.isfinite, (x, y, box_width, box_height))):
        raise ValueError("not finite")
    angle = math.radians(float(value.get("rotation") or 0.0))
    if not angle:
        return (x, y, box_width, box_height)
    if not hulls_of_rotated:
        raise ValueError("rotated")
    along, down = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))  # around the top left corner
    points = [
        (x + across * along[0] + below * down[0], y + across * along[1] + below * down[1])
        for across in (0.0, box_width)
        for below in (0.0, box_height)
    ]
    box = box_of_points(points)
    assert box is not None  # noqa: S101  (four finite points)
    return box


def _polygon(value: Mapping[str, Any], width: float, height: float) -> Box:
    box = box_of_points([(float(x) * width / 100, float(y) * height / 100) for x, y in value["points"]])
    if box is None:
        raise ValueError("a polygon of fewer than three points")
    return box


def label_studio_tasks(images: Sequence[tuple[AnnotatedImage, int, int]], *, prefix: str = "") -> list[dict[str, Any]]:
    """The tasks of images, each with the width and height of its pixels. prefix: before the file in its address."""
    return [
        {
            "id": number,
            "data": {"image": f"{prefix}{image.file}"},
            "annotations": [
                {
                    "result": [
                        {
                            "type": "rectanglelabels",
                            "from_name": "label",
                            "to_name": "image",
                            "original_width": width,
                            "original_height": height,
                            "image_rotation": 0,
                            "value": {
                                "x": annotated.box[0] / width * 100,
                                "y": annotated.box[1] / height * 100,
                                "width": annotated.box[2] / width * 100,
                                "height": annotated.box[3] / height * 100,
                                "rotation": 0,
                                "rectanglelabels": [annotated.category],
                            },
                        }
                        for annotated in image.objects
                    ]
                }
            ]
            if image.complete != "unknown" or image.objects
            else [],
        }
        for number, (image, width, height) in enumerate(images, start=1)
    ]

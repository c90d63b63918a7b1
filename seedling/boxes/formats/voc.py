"""Pascal VOC: one XML file per image, with the corners of each object (http://host.robots.ox.ac.uk/pascal/VOC/).

The corners are read as most tools write them: xmin and ymin count from 0, and xmax − xmin is the width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from seedling.boxes.annotations import AnnotatedImage, AnnotatedObject, AnnotationSet, Box, ImageIndex

FORMAT = "voc"
MAX_XML_BYTES = 64 * 2**20


def read_voc(paths: Sequence[Path], index: ImageIndex, *, hulls_of_rotated: bool = False) -> AnnotationSet:
    """Read one XML file per image. hulls_of_rotated: whether a rotated box counts as the upright box around it."""
    annotations = AnnotationSet(FORMAT)
    for path in paths:
        root = _parse(annotations, path)
        if root is None:
            continue
        file = _file_of(root, path, index)
        if file is None:
            annotations.report("missing_image", path.name, root.findtext("filename") or path.stem)
            continue
        objects = [
            annotated
            for number, element in enumerate(root.iter("object"), start=1)
            if (annotated := _object(annotations, f"{path.name}, object {number}", element, hulls_of_rotated))
        ]
        width, height = (_pixels(root.findtext(f"size/{side}")) for side in ("width", "height"))
        annotations.add(AnnotatedImage(file, tuple(objects), width, height, "yes", annotation=path.name))
    return annotations


def _parse(annotations: AnnotationSet, path: Path) -> ElementTree.Element | None:
    """The root of the file; None, and a problem, if it is no XML, too large, or declares entities."""
    content = path.read_bytes()
    if len(content) > MAX_XML_BYTES:
        annotations.report("annotation_too_large", path.name, f"{len(content):,} bytes")
        return None
    parser = ElementTree.XMLParser(target=_TreeWithoutDocumentType())  # noqa: S314  (so it has no entities)
    try:
        parser.feed(content)
        root = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        annotations.report("not_xml", path.name, str(error))
        return None
    if root.tag != "annotation":
        annotations.report("not_an_annotation", path.name, f"<{root.tag}>")
        return None
    return root


class _TreeWithoutDocumentType(ElementTree.TreeBuilder):
    """Refuses a document type, which could declare entities with which a short file expands to gigabytes."""

    def doctype(self, name: str, *_: object) -> None:
        """Called by the parser before the first element."""
        raise ValueError(f"it declares the document type '{name}'")


def _file_of(root: ElementTree.Element, path: Path, index: ImageIndex) -> str | None:
    """The image, by the name in the file or, since that may be of another machine, by the name of the XML file."""
    name = (root.findtext("filename") or "").strip()
    return (index.find(name) if name else None) or index.find_stem(path.with_suffix("").as_posix())


def _pixels(text: str | None) -> int | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return int(value) if math.isfinite(value) and value > 0 else None


def _object(
    annotations: AnnotationSet, where: str, element: ElementTree.Element, hulls_of_rotated: bool
) -> AnnotatedObject | None:
    category = (element.findtext("name") or "").strip()
    if not category:
        annotations.report("object_without_name", where)
        return None
    box = _box(annotations, where, element, hulls_of_rotated)
    if box is None:
        return None
    is_difficult = (element.findtext("difficult") or "").strip() == "1"
    return AnnotatedObject(category, box, is_difficult=is_difficult)


def _box(annotations: AnnotationSet, where: str, element: ElementTree.Element, hulls_of_rotated: bool) -> Box | None:
    rotated = element.find("robndbox")
    if element.find("bndbox") is None and rotated is not None:
        center_x, center_y, width, height, angle = _numbers(rotated, ("cx", "cy", "w", "h", "angle"))
        if not hulls_of_rotated or not math.isfinite(center_x + center_y + width + height + angle):
            annotations.report("rotated_box", where, f"angle {angle:.2f}")
            return None
        across = abs(width * math.cos(angle)) + abs(height * math.sin(angle))
        down = abs(width * math.sin(angle)) + abs(height * math.cos(angle))
        return (center_x - across / 2, center_y - down / 2, across, down)
    corners = element.find("bndbox")
    if corners is None:
        annotations.report("no_box", where)
        return None
    left, top, right, bottom = _numbers(corners, ("xmin", "ymin", "xmax", "ymax"))
    if not math.isfinite(left + top + right + bottom):
        annotations.report("box_not_four_numbers", where)
        return None
    return (left, top, right - left, bottom - top)


def _numbers(element: ElementTree.Element, names: Sequence[str]) -> list[float]:
    """The numbers of these children; NaN for one that is missing or no number."""
    values = []
    for name in names:
        try:
            values.append(float(element.findtext(name) or "nan"))
        except ValueError:
            values.append(math.nan)
    return values


def write_voc(image: AnnotatedImage, width: int, height: int, path: Path) -> None:
    """Write the XML file of an image."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = image.file
    size = ElementTree.SubElement(root, "size")
    for name, value in (("width", width), ("height", height), ("depth", 3)):
        ElementTree.SubElement(size, name).text = str(value)
    for annotated in image.objects:
        element = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(element, "name").text = annotated.category
        ElementTree.SubElement(element, "difficult").text = str(int(annotated.is_difficult))
        box = ElementTree.SubElement(element, "bndbox")
        x, y, box_width, box_height = annotated.box
        corners = (("xmin", x), ("ymin", y), ("xmax", x + box_width), ("ymax", y + box_height))
        for name, corner in corners:
            ElementTree.SubElement(box, name).text = f"{corner:.10g}"
    ElementTree.indent(root)
    path.write_bytes(ElementTree.tostring(root, encoding="utf-8"))

"""Finds the annotation files of a folder by looking at them, and reads them in whichever format they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from seedling.boxes.annotations import (
    AnnotationSet,
    FrameOf,
    ImageFrame,
    ImageIndex,
    files_of,
    merge_spellings,
    with_unannotated,
)
from seedling.boxes.formats import coco, hugging_face, label_studio, tensorflow_csv, voc, yolo
from seedling.errors import InputError
from seedling.terminal.counts import counted_noun

MAX_BYTES_TO_SNIFF = 64 * 2**10
EXIF_ORIENTATION = 0x0112
WithoutAnnotation = Literal["unlabeled", "background"]
HELP = (
    "Seedling reads COCO JSON, YOLO text files with data.yaml, Pascal VOC XML, a CSV table with the columns "
    f"{', '.join(tensorflow_csv.COLUMNS)}, Hugging Face's metadata.jsonl and Label Studio's JSON."
)


@dataclass(frozen=True)
class AnnotationFiles:
    """The annotation files of one format.

    contents: path → the parsed file if it is JSON, otherwise None; names: the file with the names of YOLO's classes.
    """

    format: str
    contents: dict[Path, Any]
    names: Path | None = None


@dataclass(frozen=True)
class ReadingOptions:
    """What an annotation file does not say.

    without_annotation: what an image is that no annotation file names; hulls_of_rotated: whether a rotated box counts
    as the smallest upright box around it, and is left out otherwise.
    """

    without_annotation: WithoutAnnotation = "unlabeled"
    hulls_of_rotated: bool = False


def find_annotations(paths: Sequence[Path], index: ImageIndex) -> list[AnnotationFiles]:
    """The annotation files among these files, by format."""
    names = next((path for path in paths if _is_names_file(path)), None)
    by_format: dict[str, AnnotationFiles] = {}
    for path in paths:
        content = coco.load_json(path) if path.suffix.casefold() == ".json" else None
        name = _format_of(path, content, index, has_names=names is not None)
        if name is not None and path != names:
            files = by_format.setdefault(name, AnnotationFiles(name, {}, names if name == yolo.FORMAT else None))
            files.contents[path] = content
    return list(by_format.values())


def _is_names_file(path: Path) -> bool:
    if path.name in yolo.NAMES_FILES:
        return True
    return path.suffix in {".yaml", ".yml"} and b"names" in _beginning(path)


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES_TO_SNIFF)


def _format_of(path: Path, content: Any, index: ImageIndex, *, has_names: bool) -> str | None:
    """The format of an annotation file; None for another file. content: the parsed file if it is JSON."""
    suffix = path.suffix.casefold()
    if suffix == ".xml":
        return voc.FORMAT if b"<annotation" in _beginning(path) else None
    if suffix == ".csv":
        header = _beginning(path).decode("utf-8-sig", errors="replace").partition("\n")[0]
        return tensorflow_csv.FORMAT if tensorflow_csv.is_table_of_boxes(header.strip().split(",")) else None
    if suffix == ".jsonl":
        return hugging_face.FORMAT if b'"file_name"' in _beginning(path) else None
    if suffix == ".json":
        if coco.is_coco(content):
            return coco.FORMAT
        return label_studio.FORMAT if label_studio.is_label_studio(content) else None
    return yolo.FORMAT if suffix == ".txt" and has_names and yolo.is_label_file(path, index) else None


def read_annotations(
    images: Path,
    annotations: Path | None = None,
    options: ReadingOptions | None = None,
    frame_of_image: FrameOf | None = None,
) -> AnnotationSet:
    """Read the annotated images of a folder.

    annotations: the folder or file of the annotations; None: they are below `images`. frame_of_image: `frame_of` the
    folder, for a caller that keeps the frames. Images that no annotation names are included. Raises InputError if there
    are no images, no annotations, or annotations in several formats.
    """
    options = options or ReadingOptions()
    index = ImageIndex.of(images)
    if not index.files:
        raise InputError(f"{images} has no images: name the folder that contains them.")
    top = images if annotations is None else annotations
    if not top.exists():
        raise InputError(f"{top} does not exist: name the folder or file of the annotations.")
    formats = find_annotations(files_of(top) if top.is_dir() else [top], index)
    if not formats:
        raise InputError(f"{top} has no annotation files. {HELP}")
    if len(formats) > 1:
        counts = ", ".join(f"{files.format} ({len(files.contents):,})" for files in formats)
        raise InputError(f"{top} has annotation files of several formats: {counts}. Name the folder or file of one.")
    merged = merge_spellings(_read(formats[0], index, options, frame_of_image or partial(frame_of, images)))
    return with_unannotated(merged, index, without_annotation=options.without_annotation)


def _read(files: AnnotationFiles, index: ImageIndex, options: ReadingOptions, frame_of_image: FrameOf) -> AnnotationSet:
    paths, hulls_of_rotated = list(files.contents), options.hulls_of_rotated
    if files.format == coco.FORMAT:
        return coco.read_coco(files.contents, index)
    if files.format == label_studio.FORMAT:
        return label_studio.read_label_studio(files.contents, index, hulls_of_rotated=hulls_of_rotated)
    if files.format == voc.FORMAT:
        return voc.read_voc(paths, index, hulls_of_rotated=hulls_of_rotated)
    if files.format == tensorflow_csv.FORMAT:
        return tensorflow_csv.read_csv(paths, index)
    if files.format == hugging_face.FORMAT:
        return hugging_face.read_metadata(paths, index)
    assert files.names is not None  # noqa: S101  (without it, no text file is one of YOLO)
    return yolo.read_yolo(paths, index, yolo.read_names(files.names), frame_of_image, hulls_of_rotated=hulls_of_rotated)


def frame_of(folder: Path, file: str) -> ImageFrame | None:
    """The size and EXIF orientation of an image file; None if it cannot be read."""
    try:
        with Image.open(folder / file) as image:
            width, height = image.size
            orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    orientation = orientation if orientation in range(1, 9) else 1
    return ImageFrame(height, width, orientation) if orientation >= 5 else ImageFrame(width, height, orientation)


def describe(annotations: AnnotationSet) -> Iterator[str]:
    """What was read, in two sentences: the counts of images, and of objects per category."""
    images = annotations.images.values()
    with_objects = sum(bool(image.objects) for image in images)
    objects = sum(len(image.objects) for image in images)
    empty = sum(not image.objects and image.complete == "yes" for image in images)
    unlabeled = sum(not image.objects and image.complete == "unknown" for image in images)
    yield (
        f"Format {annotations.format}: {counted_noun(len(images), 'image')}, {with_objects:,} of them with "
        f"{counted_noun(objects, 'object')}, {empty:,} without objects, {unlabeled:,} not annotated."
    )
    counts = annotations.object_counts
    yield "Categories: " + ", ".join(f"{name} ({counts[name]:,})" for name in annotations.categories) + "."


def problem_sentences(annotations: AnnotationSet) -> Iterator[str]:
    """Each kind of problem of the annotation files, with its count and the first example."""
    for kind, count in annotations.problem_counts().items():
        example = next(problem for problem in annotations.problems if problem.kind == kind)
        yield f"{kind} ({count:,}), for example {example.where}" + (f": {example.detail}" if example.detail else "")

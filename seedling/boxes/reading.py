"""Finds the annotation files of a folder by looking at them, and reads them in whichever format they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from PIL import Image

from seedling.boxes.annotations import AnnotationSet, ImageIndex, files_of, merge_spellings, with_unannotated
from seedling.boxes.checks import ImageFrame
from seedling.boxes.formats import coco, hugging_face, label_studio, tensorflow_csv, voc, yolo
from seedling.errors import InputError

MAX_BYTES_TO_SNIFF = 64 * 2**10
EXIF_ORIENTATION = 0x0112
WithoutAnnotation = Literal["unlabeled", "background"]
HELP = (
    "Seedling reads COCO JSON, YOLO text files with data.yaml, Pascal VOC XML, a CSV table with the columns "
    f"{', '.join(tensorflow_csv.COLUMNS)}, Hugging Face's metadata.jsonl and Label Studio's JSON."
)


@dataclass(frozen=True)
class AnnotationFiles:
    """The annotation files of one format below a folder. names: the file with the names of YOLO's classes."""

    format: str
    paths: tuple[Path, ...]
    names: Path | None = None


@dataclass(frozen=True)
class ReadingOptions:
    """What an annotation file does not say.

    without_annotation: what an image is that no annotation file names; hulls_of_rotated: whether a rotated box counts
    as the smallest upright box around it, and is left out otherwise.
    """

    without_annotation: WithoutAnnotation = "unlabeled"
    hulls_of_rotated: bool = False


def find_annotations(folder: Path) -> list[AnnotationFiles]:
    """The annotation files below a folder, by format; hidden files and folders are left out."""
    paths = files_of(folder)
    names = next((path for path in paths if _is_names_file(path)), None)
    kinds: dict[str, list[Path]] = {}
    for path in paths:
        kind = _format_of(path, has_names=names is not None)
        if kind is not None and path != names:
            kinds.setdefault(kind, []).append(path)
    return [
        AnnotationFiles(kind, tuple(of_kind), names if kind == yolo.FORMAT else None) for kind, of_kind in kinds.items()
    ]


def _is_names_file(path: Path) -> bool:
    if path.name in yolo.NAMES_FILES:
        return True
    return path.suffix in {".yaml", ".yml"} and b"names" in _beginning(path)


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES_TO_SNIFF)


def _format_of(path: Path, *, has_names: bool) -> str | None:
    """The format of an annotation file; None for another file."""
    suffix = path.suffix.casefold()
    if suffix == ".xml":
        return voc.FORMAT if b"<annotation" in _beginning(path) else None
    if suffix == ".csv":
        header = _beginning(path).decode("utf-8-sig", errors="replace").partition("\n")[0]
        return tensorflow_csv.FORMAT if tensorflow_csv.is_table_of_boxes(header.strip().split(",")) else None
    if suffix == ".jsonl":
        return hugging_face.FORMAT if b'"file_name"' in _beginning(path) else None
    if suffix == ".json":
        content = coco.load_json(path)
        if coco.is_coco(content):
            return coco.FORMAT
        return label_studio.FORMAT if label_studio.is_label_studio(content) else None
    return yolo.FORMAT if suffix == ".txt" and has_names else None


def read_annotations(
    images: Path, annotations: Path | None = None, options: ReadingOptions | None = None
) -> AnnotationSet:
    """Read the annotated images of a folder.

    annotations: the folder or file of the annotations; None: they are below `images`. Images that no annotation names
    are included. Raises InputError if there are no images, no annotations, or annotations in several formats.
    """
    options = options or ReadingOptions()
    index = ImageIndex.of(images)
    if not index.files:
        raise InputError(f"{images} has no images: name the folder that contains them.")
    top = images if annotations is None else annotations
    formats = find_annotations(top) if top.is_dir() else _single_file(top)
    if not formats:
        raise InputError(f"{top} has no annotation files. {HELP}")
    if len(formats) > 1:
        counts = ", ".join(f"{files.format} ({len(files.paths):,})" for files in formats)
        raise InputError(f"{top} has annotation files of several formats: {counts}. Name the folder or file of one.")
    merged = merge_spellings(_reader_of(formats[0], index, options)(formats[0].paths))
    return with_unannotated(merged, index, without_annotation=options.without_annotation)


def _single_file(path: Path) -> list[AnnotationFiles]:
    if not path.is_file():
        raise InputError(f"{path} does not exist: name the folder or file of the annotations.")
    kind = _format_of(path, has_names=False)
    return [AnnotationFiles(kind, (path,))] if kind is not None else []


def _reader_of(
    files: AnnotationFiles, index: ImageIndex, options: ReadingOptions
) -> Callable[[Sequence[Path]], AnnotationSet]:
    if files.format == yolo.FORMAT:
        if files.names is None:
            raise InputError(f"The YOLO files need the names of their classes: add data.yaml or {yolo.NAMES_FILES[0]}.")
        return partial(
            yolo.read_yolo,
            index=index,
            names=yolo.read_names(files.names),
            size_of=partial(_size_of, index.folder),
            hulls_of_rotated=options.hulls_of_rotated,
        )
    if files.format == voc.FORMAT:
        return partial(voc.read_voc, index=index, hulls_of_rotated=options.hulls_of_rotated)
    if files.format == label_studio.FORMAT:
        return partial(label_studio.read_label_studio, index=index, hulls_of_rotated=options.hulls_of_rotated)
    readers: dict[str, Callable[..., AnnotationSet]] = {
        coco.FORMAT: coco.read_coco,
        tensorflow_csv.FORMAT: tensorflow_csv.read_csv,
        hugging_face.FORMAT: hugging_face.read_metadata,
    }
    return partial(readers[files.format], index=index)


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


def _size_of(folder: Path, file: str) -> tuple[int, int] | None:
    frame = frame_of(folder, file)
    return None if frame is None else (frame.width, frame.height)


def describe(annotations: AnnotationSet) -> Iterable[str]:
    """What was read, in two sentences: the counts of images, and of objects per category."""
    images = annotations.images.values()
    with_objects = sum(bool(image.objects) for image in images)
    objects = sum(len(image.objects) for image in images)
    empty = sum(not image.objects and image.complete == "yes" for image in images)
    unlabeled = sum(not image.objects and image.complete == "unknown" for image in images)
    yield (
        f"Format {annotations.format}: {len(annotations.images):,} images, {with_objects:,} of them with "
        f"{objects:,} objects, {empty:,} without objects, {unlabeled:,} not annotated."
    )
    counts = annotations.object_counts
    yield "Categories: " + ", ".join(f"{name} ({counts[name]:,})" for name in annotations.categories) + "."

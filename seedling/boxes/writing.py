"""Writes a dataset of images with boxes in any of the formats, as a folder that other tools read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from PIL import Image, ImageOps

from seedling.boxes.annotations import AnnotatedImage, ImageFrame
from seedling.boxes.checks import CheckedAnnotations
from seedling.boxes.formats import coco, hugging_face, label_studio, tensorflow_csv, voc, yolo
from seedling.errors import InputError
from seedling.formats import BoxFormat
from seedling.progress import Progress, silent

IMAGES = "images"
JPEG_QUALITY = 95
SizedImage = tuple[AnnotatedImage, int, int]


def write_dataset(
    checked: CheckedAnnotations, images: Path, output: Path, form: BoxFormat, *, progress: Progress = silent
) -> None:
    """Write the images to `output`/images and their annotations beside it.

    An image with an EXIF orientation is turned, since some tools ignore the orientation. An image that is not annotated
    has no annotation, so that it does not look like one without objects. Raises InputError if the folder exists and is
    not empty, or if two images would have the same annotation file.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} is not empty: name a new folder.")
    annotated = checked.annotations.images
    if form in {BoxFormat.voc, BoxFormat.yolo}:
        _check_stems(annotated)
    sized: list[SizedImage] = []
    for number, file in enumerate(sorted(annotated), start=1):
        frame, target = checked.frames[file], output / IMAGES / file
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_image(images / file, target, frame)
        if annotated[file].complete != "unknown" or annotated[file].objects:
            sized.append((annotated[file], frame.width, frame.height))
        progress("images", number, len(annotated))
    _write_annotations(form, sized, checked.annotations.categories, output)


def _check_stems(files: Iterable[str]) -> None:
    file_of_stem: dict[str, str] = {}
    for file in files:
        other = file_of_stem.setdefault(PurePosixPath(file).with_suffix("").as_posix(), file)
        if other != file:
            raise InputError(
                f"{other} and {file} would have the same annotation file: rename one of them, or choose a format with "
                "one file for all images, such as coco."
            )


def _write_image(source: Path, target: Path, frame: ImageFrame) -> None:
    if frame.orientation == 1:
        shutil.copyfile(source, target)
        return
    with Image.open(source) as image:
        turned = ImageOps.exif_transpose(image)
        turned.save(target, format=image.format, **({"quality": JPEG_QUALITY} if image.format == "JPEG" else {}))


def _write_annotations(form: BoxFormat, images: Sequence[SizedImage], categories: Sequence[str], output: Path) -> None:
    below_images = [(replace(image, file=f"{IMAGES}/{image.file}"), width, height) for image, width, height in images]
    if form is BoxFormat.coco:
        coco.write_coco(images, categories, output / "annotations.json")
    elif form is BoxFormat.csv:
        tensorflow_csv.write_csv(images, output / "boxes.csv")
    elif form is BoxFormat.hugging_face:
        hugging_face.write_metadata(below_images, output / "metadata.jsonl")
    elif form is BoxFormat.label_studio:
        tasks = label_studio.label_studio_tasks(below_images, prefix="/data/local-files/?d=")
        (output / "tasks.json").write_text(json.dumps(tasks, ensure_ascii=False, indent=1), encoding="utf-8")
    elif form is BoxFormat.voc:
        for image, width, height in images:
            path = (output / "annotations" / image.file).with_suffix(".xml")
            path.parent.mkdir(parents=True, exist_ok=True)
            voc.write_voc(replace(image, file=PurePosixPath(image.file).name), width, height, path)
    else:
        for image, width, height in images:
            path = (output / "labels" / image.file).with_suffix(".txt")
            yolo.write_yolo(image, width, height, categories, path)
        yolo.write_data_yaml(categories, {"train": IMAGES, "val": IMAGES}, output / "data.yaml")


def lost_in(form: BoxFormat, images: Mapping[str, AnnotatedImage]) -> list[str]:
    """What the format cannot hold of these objects, in a few words each."""
    objects = [each for image in images.values() for each in image.objects]
    keeps_masks = form in {BoxFormat.coco, BoxFormat.hugging_face}
    keeps_confidence = form in {BoxFormat.coco, BoxFormat.yolo, BoxFormat.hugging_face}
    keeps_difficult = form in {BoxFormat.coco, BoxFormat.voc, BoxFormat.hugging_face}
    losses = {
        "masks": (not keeps_masks, sum(each.mask is not None for each in objects)),
        "crowds": (not keeps_masks, sum(each.is_crowd for each in objects)),
        "confidences": (not keeps_confidence, sum(each.confidence < 1 for each in objects)),
        "difficult objects": (not keeps_difficult, sum(each.is_difficult for each in objects)),
    }
    return [f"{count:,} {what}" for what, (is_lost, count) in losses.items() if is_lost and count]

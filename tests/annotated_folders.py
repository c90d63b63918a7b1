"""Folders of images with boxes, for tests: images of noise, and writers of each annotation format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from seedling.boxes.annotations import AnnotatedImage
from seedling.boxes.formats.coco import write_coco
from seedling.boxes.formats.hugging_face import write_metadata
from seedling.boxes.formats.label_studio import label_studio_tasks
from seedling.boxes.formats.tensorflow_csv import write_csv
from seedling.boxes.formats.voc import write_voc
from seedling.boxes.formats.yolo import write_data_yaml, write_yolo

WIDTH, HEIGHT = 64, 48
FORMATS = ("coco", "yolo", "voc", "csv", "hugging_face", "label_studio")


def write_images(folder: Path, files: Sequence[str]) -> Path:
    """Images of 64 × 48 pixels of noise; returns the folder."""
    generator = np.random.default_rng(0)
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path)
    return folder


def write_annotations(kind: str, images: Sequence[AnnotatedImage], categories: Sequence[str], folder: Path) -> Path:
    """The annotation file or folder of a format; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    sized = [(image, image.width or WIDTH, image.height or HEIGHT) for image in images]
    if kind == "coco":
        write_coco(sized, categories, folder / "instances.json")
    elif kind == "csv":
        write_csv(sized, folder / "boxes.csv")
    elif kind == "hugging_face":
        write_metadata(sized, folder / "metadata.jsonl")
    elif kind == "label_studio":
        (folder / "tasks.json").write_text(json.dumps(label_studio_tasks(sized)))
    for image, width, height in sized if kind in {"voc", "yolo"} else ():
        path = folder / Path(image.file).with_suffix(".xml" if kind == "voc" else ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "voc":
            write_voc(image, width, height, path)
        else:
            write_yolo(image, width, height, categories, path)
    if kind == "yolo":
        write_data_yaml(categories, {"train": "."}, folder / "data.yaml")
    return folder


def write_files(folder: Path, files: Mapping[str, str]) -> Path:
    """Text files by path; returns the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder

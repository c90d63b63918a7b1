"""The sources of the tasks of proving_ground.py, and their features by the encoder of their modality."""

from __future__ import annotations

import ast
import io
import sysconfig
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from seedling.config.params import EncoderParams
from seedling.features.encoded_features import VIEWS, EncodedFeatures
from seedling.features.encoder import COLOR_COLUMNS
from seedling.features.encoder_handle import EncoderHandle
from seedling.features.normalization import normalize_rows
from seedling.stats.statistics import Floats

MAX_TRAIN_ROWS, MAX_TEST_ROWS = 3_000, 1_000  # of a source
PACKAGES = ("scipy", "sklearn", "pandas", "torch", "prefect", "numpy", "transformers")


@dataclass(frozen=True)
class Source:
    """A source of tasks. half: choose or prove; change: what is done to its rows; max_classes: of a task."""

    name: str
    half: str
    change: str = ""
    max_classes: int | None = None

    @property
    def title(self) -> str:
        """The name with the change."""
        return f"{self.name} {self.change}".strip()


SOURCES = (
    Source("trashnet", "choose"),
    Source("trashnet", "choose", "gray"),
    Source("hwu64", "choose", max_classes=12),
    Source("hwu64", "choose", "six words", max_classes=12),
    Source("sms_spam", "choose"),
    Source("docstrings", "choose"),
    Source("clusters", "choose"),
    Source("clothing_small", "prove"),
    Source("clothing_small", "prove", "blurred"),
    Source("banking77_oos", "prove", max_classes=10),
    Source("advisory_severity", "prove"),
    Source("cells", "prove"),
    Source("digits", "prove"),
    Source("stripes", "prove"),
)


@dataclass(frozen=True)
class Features:
    """The features of a source.

    encoder: (n, d), as Seedling computes them; whole, center: (n, d), of one view of the images, for texts equal to
    `encoder`; surface: (n, s), of colors or words; labels, is_test: (n,).
    """

    encoder: Floats
    whole: Floats
    center: Floats
    surface: Floats
    labels: NDArray[np.str_]
    is_test: NDArray[np.bool_]


def read_set(folder: Path, max_train: int = MAX_TRAIN_ROWS, max_test: int = MAX_TEST_ROWS) -> pd.DataFrame:
    """Return a sample of the train and test rows of a set."""
    frame = pd.read_parquet(folder / "data.parquet")
    parts = [frame[frame["split"] == split] for split in ("train", "test")]
    sizes = (max_train, max_test)
    return pd.concat(
        [part.sample(min(len(part), size), random_state=0) for part, size in zip(parts, sizes, strict=True)]
    )


def shuffled(rows: Sequence[tuple[bytes | str, str]], kind: str) -> pd.DataFrame:
    """Return rows without duplicates as a frame; a third of them are test rows."""
    frame = pd.DataFrame(rows, columns=[kind, "label"]).drop_duplicates(kind).sample(frac=1, random_state=0)
    return frame.assign(split=np.where(np.arange(len(frame)) < len(frame) / 3, "test", "train"))


def docstrings(_: Path) -> pd.DataFrame:
    """Docstrings of installed packages, with the package as class: long texts with overlapping vocabulary."""
    packages, rows = Path(sysconfig.get_path("purelib")), []
    for package in PACKAGES:
        texts: list[str] = []
        files = sorted((packages / package).rglob("*.py"))
        for file in np.random.default_rng(0).permutation(np.array(files, dtype=object))[:300]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    tree = ast.parse(file.read_text(encoding="utf-8", errors="ignore"))
                except SyntaxError:
                    continue
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    words = (ast.get_docstring(node) or "").split()
                    texts += [" ".join(words)] if len(words) > 12 else []
        rows += [(text, package) for text in np.random.default_rng(1).permutation(np.array(texts, dtype=object))[:450]]
    return shuffled(rows, "text")


def cells(data: Path) -> pd.DataFrame:
    """Cut-outs of blood cells, with a third of the red ones, which are nine of ten."""
    rng, rows = np.random.default_rng(0), []
    for annotation in sorted((data / "bccd/annotations").glob("*.xml")):
        image = Image.open(data / f"bccd/images/{annotation.stem}.jpg").convert("RGB")
        for item in ElementTree.parse(annotation).getroot().findall("object"):  # noqa: S314  (our own copy of the set)
            left, top, right, bottom = (
                int(item.findtext(f"bndbox/{side}") or 0) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            label = item.findtext("name") or ""
            if min(right - left, bottom - top) < 10 or (label == "RBC" and rng.random() > 0.35):
                continue
            rows.append((encoded(np.asarray(image.crop((left, top, right, bottom)))), label))
    return shuffled(rows, "image")


def digits(_: Path) -> pd.DataFrame:
    """scikit-learn's digits, enlarged to 64 pixels."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = [
        cv2.resize((image * 15.9).astype(np.uint8), (64, 64), interpolation=cv2.INTER_CUBIC) for image in loaded.images
    ]
    return shuffled([(encoded(image), str(label)) for image, label in zip(images, loaded.target, strict=True)], "image")


def encoded(image: NDArray[np.uint8]) -> bytes:
    """Return an image as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def changed(payload: bytes | str, change: str) -> bytes | str:
    """Return a gray, blurred or shortened copy of a row."""
    if isinstance(payload, str):
        return " ".join(payload.split()[:6]) if change == "six words" else payload
    if not change:
        return payload
    image = Image.open(io.BytesIO(payload)).convert("L" if change == "gray" else "RGB")
    pixels = np.asarray(image if change == "gray" else image.resize((96, 96)))
    return encoded(pixels if change == "gray" else cv2.GaussianBlur(pixels, (0, 0), 2))


def synthetic(name: str) -> Features:
    """Embeddings with known structure: clusters that follow the classes, or stripes across all clusters."""
    rng, n_classes, n_rows = np.random.default_rng(7), 6, 2_400
    cluster = rng.integers(n_classes, size=n_rows)
    centers = rng.normal(size=(n_classes, 64))
    direction = rng.normal(size=64)
    points = centers[cluster] + 1.2 * rng.normal(size=(n_rows, 64))
    classes = cluster
    if name == "stripes":  # the class is the position along a direction that has nothing to do with the clusters
        position = points @ direction
        classes = np.searchsorted(np.quantile(position, [0.25, 0.5, 0.75]), position)
    return Features(
        encoder=points.astype(np.float32),
        whole=points.astype(np.float32),
        center=points.astype(np.float32),
        surface=rng.normal(size=(n_rows, COLOR_COLUMNS)).astype(np.float32),
        labels=classes.astype(str),
        is_test=np.arange(n_rows) % 3 == 0,
    )


MADE: dict[str, Callable[[Path], pd.DataFrame]] = {"docstrings": docstrings, "cells": cells, "digits": digits}


def features_of(source: Source, data: Path, backbone: str, cache: Path) -> Features:
    """Compute a source's features, or read them from the cache."""
    if source.name in {"clusters", "stripes"}:
        return synthetic(source.name)
    path = cache / f"{source.title.replace(' ', '-')}.npz"
    if not path.is_file():
        frame = MADE[source.name](data) if source.name in MADE else read_set(data / source.name)
        modality = "text" if "text" in frame else "image"
        cells_of_rows = frame[modality].tolist()
        payloads = [changed(cell["bytes"] if isinstance(cell, dict) else cell, source.change) for cell in cells_of_rows]
        model = "all-MiniLM-L6-v2" if modality == "text" else backbone
        handle = EncoderHandle(EncoderParams(model=model), modality, cache)  # type: ignore[arg-type]
        if modality == "text":
            maker = EncodedFeatures(handle)
            encoder = whole = center = maker._encode(payloads)
            surface = maker._fit_topics(payloads)
        else:
            of_view = {view: EncodedFeatures(handle, views=(view,))._encode(payloads) for view in VIEWS["image"]}
            by_view = {view: normalize_rows(raw[:, :-COLOR_COLUMNS]) for view, raw in of_view.items()}
            encoder, surface = np.mean([*by_view.values()], axis=0), of_view["whole"][:, -COLOR_COLUMNS:]
            whole, center = by_view["whole"], of_view["center"][:, :-COLOR_COLUMNS]
        np.savez(
            path,
            encoder=encoder,
            whole=whole,
            center=center,
            surface=surface,
            labels=frame["label"].to_numpy(dtype=str),
            is_test=(frame["split"] == "test").to_numpy(),
        )
    with np.load(path) as arrays:
        return Features(**{name: arrays[name] for name in arrays.files})


def combined(
    encoder: Floats, surface: Floats, fit_rows: NDArray[np.intp], surface_weight: float
) -> NDArray[np.float32]:
    """(n, d + s): the features that Seedling computes, centered on the rows that training may use."""

    def block(values: Floats) -> Floats:
        unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
        centered = unit - unit[fit_rows].mean(axis=0)
        scaled: Floats = centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-9)
        return scaled

    both = np.concatenate([block(encoder), surface_weight * block(surface)], axis=1)
    return (both / np.linalg.norm(both, axis=1, keepdims=True)).astype(np.float32)

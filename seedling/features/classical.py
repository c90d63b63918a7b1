"""Features without an encoder: pixels, HOG (Dalal & Triggs 2005) and color for images, TF-IDF for texts.

They are fitted without labels, and never on held-out rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from seedling.dataset.generation import PayloadReader
from seedling.features.sparsity import is_sparse
from seedling.media import images
from seedling.media.images import Pixels
from seedling.parallel.pool import in_pieces
from seedling.progress import Progress, counted, silent

WORD = r"(?u)\b\w+\b"
CELL = 8
BINS = 9
THUMBNAIL = 8
COLOR_BINS = 16
NO_TERM = ""  # the only term in the vocabulary of texts without terms
GRAY_MAX_CHROMA = 2.0  # mean absolute chroma in LAB levels (0 to 255), below which a collection counts as gray

Read = Callable[[Sequence[str]], Iterable[tuple[str, bytes | str]]]  # ids → (id, payload) pairs, in any order
ROWS_PER_BLOCK = 2_048
ROWS_FOR_SIDES = 200  # whose sizes decide the side of the images that features are computed from
MAX_ROWS_PER_PIECE, MAX_MEGABYTES_PER_PIECE = 256, 8  # that a process decodes before it returns their features


@dataclass(frozen=True, slots=True)
class Contents:
    """The images or texts of rows, which are read when a learner needs them."""

    ids: NDArray[np.str_]
    read: Read

    @classmethod
    def of(cls, payloads: Sequence[bytes | str]) -> Contents:
        """Wrap payloads that are in memory."""
        names = np.arange(len(payloads)).astype(str)
        return cls(names, lambda ids: ((row_id, payloads[int(row_id)]) for row_id in ids))

    def __iter__(self) -> Iterator[bytes | str]:
        """Yield the payloads in the order of the ids, one block in memory at a time."""
        for first in range(0, len(self.ids), ROWS_PER_BLOCK):
            block = self.ids[first : first + ROWS_PER_BLOCK].tolist()
            payload_of_id = dict(self.read(block))
            yield from (payload_of_id[row_id] for row_id in block)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of learners.

    features: (n, d), dense or sparse; images: (n, side, side, 3) for the network, if there are any; contents: to
    fine-tune an encoder, if there is one.
    """

    features: Any
    images: NDArray[np.uint8] | None = None
    contents: Contents | None = None

    def __len__(self) -> int:
        return int(self.features.shape[0])

    def take(self, rows: NDArray[np.intp]) -> Inputs:
        """Return the inputs of these row numbers, in their order."""
        contents = None if self.contents is None else Contents(self.contents.ids[rows], self.contents.read)
        return Inputs(self.features[rows], None if self.images is None else self.images[rows], contents)


class FeatureMaker(ABC):
    """Converts payloads to Inputs; call `fit_transform` first, on rows that training may use."""

    @abstractmethod
    def fit_transform(self, payloads: Iterable[bytes | str]) -> Inputs:
        """Fit on these rows and return their features."""

    @abstractmethod
    def transform(self, payloads: Iterable[bytes | str]) -> Inputs:
        """Return the features of further rows."""

    def of_rows(self, ids: Sequence[str], read: Read, *, fit: bool, progress: Progress = silent) -> Inputs:
        """Return the features of these rows, in order; with `fit`, fit on them first."""
        read_ids: list[str] = []

        def payloads() -> Iterator[bytes | str]:
            for row_id, payload in counted(read(ids), progress, "read rows", len(ids)):
                read_ids.append(row_id)
                yield payload

        inputs = self.fit_transform(payloads()) if fit else self.transform(payloads())
        position_of_id = {row_id: row for row, row_id in enumerate(read_ids)}
        return inputs.take(np.array([position_of_id[row_id] for row_id in ids], dtype=np.intp))


class ImageFeatures(FeatureMaker):
    """A thumbnail, HOG and (if the collection has color) color histograms, each block with equal weight."""

    def __init__(
        self,
        side: int | None = None,
        max_megapixels: float = 64.0,
        network_side: int = 32,
        blocks: Any = None,
        cache: Path | None = None,
    ) -> None:
        """The sides: see `Measure`. blocks: mean and scale per block, if fitted; cache: folder of the feature cache."""
        self.side, self.max_megapixels, self.network_side = side, max_megapixels, network_side
        self.blocks: list[tuple[NDArray[np.float32], float]] | None = blocks
        self.cache = cache

    def of_rows(self, ids: Sequence[str], read: Read, *, fit: bool, progress: Progress = silent) -> Inputs:
        """As `FeatureMaker.of_rows`, but the features of each image are computed once per workspace."""
        if self.cache is None or not isinstance(read, PayloadReader) or len(ids) == 0:
            return super().of_rows(ids, read, fit=fit, progress=progress)
        from seedling.features.cached_blocks import blocks_of_rows, shorter_sides

        order = read.order(ids)
        if fit:
            self._choose_sides(shorter_sides(order[:ROWS_FOR_SIDES], read, self.cache, self.max_megapixels))
        image_arrays, raw = blocks_of_rows(self._measure(), order, read, self.cache, progress)
        inputs = Inputs(self._fit_scaled(raw) if fit else self._scaled(raw), image_arrays)
        position_of_id = {row_id: row for row, row_id in enumerate(order)}
        return inputs.take(np.array([position_of_id[row_id] for row_id in ids], dtype=np.intp))

    def fit_transform(self, payloads: Iterable[bytes | str]) -> Inputs:
        """Choose the side by the size of the images unless it is set, and learn the mean and scale of each block."""
        remaining = iter(payloads)
        first = list(islice(remaining, ROWS_FOR_SIDES))
        self._choose_sides([images.shorter_side(bytes(payload), self.max_megapixels) for payload in first])  # type: ignore[arg-type]
        image_arrays, raw = self._raw_blocks_of(chain(first, remaining))
        return Inputs(self._fit_scaled(raw), image_arrays)

    def _choose_sides(self, shorter_sides: Sequence[float]) -> None:
        """Choose the sides that are not set. shorter_sides: of the first images, in pixels."""
        median_side = np.median(shorter_sides)
        self.side = self.side or images.feature_side(median_side)
        self.network_side = 16 if median_side <= 16 else 32

    def _fit_scaled(self, raw: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Learn the mean and scale of each block, and return the features; empties `raw`."""
        self.blocks = []
        for block in raw:
            mean = block.mean(axis=0)
            block_starts = range(0, len(block), ROWS_PER_BLOCK)
            squared_distances = [
                ((block[start : start + ROWS_PER_BLOCK] - mean) ** 2).sum(axis=1) for start in block_starts
            ]
            scale = float(np.sqrt(np.concatenate(squared_distances).mean()))
            self.blocks.append((mean.astype(np.float32), scale if scale > 1e-6 else np.inf))
        if float(np.abs(raw[0].reshape(-1, THUMBNAIL**2, 3)[..., 1:] - 128).mean()) < GRAY_MAX_CHROMA:
            self.blocks[2] = (self.blocks[2][0], np.inf)  # a gray collection has no useful color histogram
        return self._scaled(raw)

    def transform(self, payloads: Iterable[bytes | str]) -> Inputs:
        """Return the features of further images."""
        image_arrays, raw = self._raw_blocks_of(payloads)
        return Inputs(self._scaled(raw), image_arrays)

    def _measure(self) -> Measure:
        return Measure(self.side or images.SMALL_SIDE, self.network_side, self.max_megapixels)

    def _raw_blocks_of(self, payloads: Iterable[bytes | str]) -> tuple[NDArray[np.uint8], list[NDArray[np.float32]]]:
        """Return the images in the network's size, and the raw feature blocks."""
        measure = self._measure()
        parts = list(in_pieces(measure, pieces_of(payloads)))
        image_arrays = [small for small, _ in parts] or [
            np.zeros((0, measure.network_side, measure.network_side, 3), np.uint8)
        ]
        raw = [blocks for _, blocks in parts] or [raw_blocks(np.zeros((0, measure.side, measure.side, 3), np.uint8))]
        parts.clear()
        return np.concatenate(image_arrays), [np.concatenate(block) for block in zip(*raw, strict=True)]

    def _scaled(self, raw: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the features; empties `raw`, so that each block is in memory once."""
        remaining = [
            (block, (mean, scale))
            for block, (mean, scale) in zip(raw, self.blocks or [], strict=True)
            if np.isfinite(scale)
        ]
        raw.clear()
        features = np.empty((len(remaining[0][0]), sum(block.shape[1] for block, _ in remaining)), np.float32)
        column = 0
        while remaining:
            block, (mean, scale) = remaining.pop(0)
            columns = slice(column, column + block.shape[1])
            for first in range(0, len(block), ROWS_PER_BLOCK):
                rows = slice(first, first + ROWS_PER_BLOCK)
                features[rows, columns] = (block[rows] - mean) / scale
            column = columns.stop
        return features


@dataclass(frozen=True)
class Measure:
    """Converts encoded images to raw feature blocks; any process can run it.

    side: of the images that features are computed from; network_side: of the images that the network gets.
    """

    side: int
    network_side: int
    max_megapixels: float

    def __call__(self, payloads: Sequence[bytes | Pixels]) -> tuple[NDArray[np.uint8], list[NDArray[np.float32]]]:
        """(n, network_side, network_side, 3), and `raw_blocks`. payloads: encoded images, or (side, side, 3) copies."""
        resized = [
            images.resized(images.decode(payload, self.max_megapixels), self.side, self.side)
            if isinstance(payload, bytes)
            else payload
            for payload in payloads
        ]
        small = [images.resized(image, self.network_side, self.network_side) for image in resized]
        return np.stack(small), raw_blocks(np.stack(resized))


def pieces_of(payloads: Iterable[Any], rows: int = MAX_ROWS_PER_PIECE, multiple: int = 1) -> Iterator[list[Any]]:
    """Yield lists of consecutive payloads.

    A list ends at `rows` payloads, or at a multiple of `multiple` beyond `MAX_MEGABYTES_PER_PIECE`.
    """
    piece, n_bytes = list[Any](), 0
    for payload in payloads:
        piece.append(payload)
        n_bytes += len(payload)
        if len(piece) == rows or (n_bytes > MAX_MEGABYTES_PER_PIECE * 2**20 and len(piece) % multiple == 0):
            yield piece
            piece, n_bytes = [], 0
    if piece:
        yield piece


def raw_blocks(image_arrays: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Return the thumbnail in LAB (n, 192), HOG (n, ·), and the square roots of LAB histograms (n, 48)."""
    thumbnails = np.zeros((len(image_arrays), THUMBNAIL * THUMBNAIL * 3), np.float32)
    gray = np.zeros(image_arrays.shape[:3], np.float32)
    histograms = np.zeros((len(image_arrays), 3 * COLOR_BINS), np.float32)
    for row, image in enumerate(image_arrays):
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
        thumbnails[row] = cv2.resize(lab, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).ravel()
        gray[row] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        bins = lab.reshape(-1, 3).astype(np.intp) * COLOR_BINS // 256 + np.arange(3) * COLOR_BINS
        histograms[row] = np.bincount(bins.ravel(), minlength=3 * COLOR_BINS) / len(bins)
    return [thumbnails, hog((gray / 255).astype(np.float32)), np.sqrt(histograms)]


def hog(gray: NDArray[np.float32], cell: int = CELL, bins: int = BINS) -> NDArray[np.float32]:
    """Histograms of oriented gradients: unsigned, linear interpolation between bins, blocks of 2×2 cells, L2 norm.

    gray: (n, height, width), 0 to 1, sides multiples of `cell`. Returns (n, blocks × 4 × bins). Implemented here
    because OpenCV 5 has no HOG and scikit-image's takes one image at a time.
    """
    n, height, width = gray.shape
    padded = np.pad(gray, ((0, 0), (1, 1), (1, 1)), mode="edge")
    dx = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    dy = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    magnitude = np.hypot(dx, dy)
    angle = (np.arctan2(dy, dx) % np.pi) / np.pi * bins
    bin_floor = np.floor(angle)
    upper_share = angle - bin_floor
    lower_bin = bin_floor.astype(np.intp) % bins
    cells = np.zeros((n, height // cell, width // cell, bins), np.float32)
    for bin_index in range(bins):
        votes = magnitude * (
            (lower_bin == bin_index) * (1 - upper_share) + ((lower_bin + 1) % bins == bin_index) * upper_share
        )
        cells[..., bin_index] = votes.reshape(n, height // cell, cell, width // cell, cell).sum(axis=(2, 4))
    corners = [cells[:, :-1, :-1], cells[:, 1:, :-1], cells[:, :-1, 1:], cells[:, 1:, 1:]]
    blocks = np.concatenate(corners, axis=-1)
    blocks = blocks / (np.linalg.norm(blocks, axis=-1, keepdims=True) + 0.1)
    return np.ascontiguousarray(blocks.reshape(n, int(np.prod(blocks.shape[1:]))), dtype=np.float32)


class TextFeatures(FeatureMaker):
    """TF-IDF of words and word pairs, and of character 2- to 5-grams within words; both halves have equal weight.

    min_rows: the minimum number of texts that contain a term; max_terms: the maximum number of terms per half, the most
    frequent ones.
    """

    def __init__(self, words: Any = None, characters: Any = None, min_rows: int = 1, max_terms: int = 50_000) -> None:
        self.words, self.characters, self.min_rows, self.max_terms = words, characters, min_rows, max_terms

    def fit_transform(self, payloads: Iterable[bytes | str]) -> Inputs:
        """Learn the vocabulary and the document frequencies."""
        texts = [str(payload) for payload in payloads]
        self.words, self.characters = (self._fitted(half, texts) for half in ("words", "characters"))
        return self.transform(texts)

    def _fitted(self, half: str, texts: list[str]) -> Any:
        for min_document_frequency in dict.fromkeys((self.min_rows if len(texts) > 1 else 1, 1)):
            with suppress(ValueError):  # no term occurs in that many texts
                return make_vectorizers(min_rows=min_document_frequency, max_terms=self.max_terms)[half].fit(texts)
        return make_vectorizers([NO_TERM])[half].fit(texts)

    def transform(self, payloads: Iterable[bytes | str]) -> Inputs:
        """Return the features of further texts."""
        texts = [str(payload) for payload in payloads]
        if not texts:  # scikit-learn requires at least one row
            n_terms = len(self.words.vocabulary_) + len(self.characters.vocabulary_)
            return Inputs(sparse.csr_matrix(np.zeros((0, n_terms), dtype=np.float32)))
        halves = [vectorizer.transform(texts) for vectorizer in (self.words, self.characters)]
        return Inputs(sparse.csr_matrix(sparse.hstack(halves) / np.float32(np.sqrt(2))))


def make_vectorizers(vocabulary: list[str] | None = None, min_rows: int = 1, max_terms: int = 50_000) -> dict[str, Any]:
    """Return the two vectorizers of TextFeatures by name, unfitted or with a fixed vocabulary."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    shared = {"sublinear_tf": True, "max_features": max_terms, "dtype": np.float32, "vocabulary": vocabulary}
    shared["min_df"] = min_rows
    return {
        "words": TfidfVectorizer(ngram_range=(1, 2), token_pattern=WORD, **shared),
        "characters": TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **shared),
    }


def dense(features: Any, dimensions: int = 150) -> NDArray[np.float32]:
    """Return features whose Euclidean distances are meaningful.

    Dense features are returned unchanged; sparse ones are reduced by latent semantic analysis (Deerwester et al. 1990,
    seedling/features/latent_semantics.py) and normalized to length 1.
    """
    if not is_sparse(features):
        return np.asarray(features, dtype=np.float32)
    from seedling.features.latent_semantics import topic_directions

    # TruncatedSVD's ARPACK draws unseeded vectors if fewer rows than dimensions are linearly independent.
    directions = topic_directions(features, min(dimensions, min(features.shape) - 1))
    reduced = features.astype(np.float64) @ directions
    unit: NDArray[np.float32] = (reduced / (np.linalg.norm(reduced, axis=1, keepdims=True) + 1e-9)).astype(np.float32)
    return unit

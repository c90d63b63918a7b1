"""Features without an encoder: pixels, HOG (Dalal & Triggs 2005) and color for images, TF-IDF for texts.

Fitted on rows without looking at any label, and never on held-out rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from seedling.media import images
from seedling.parallel.pool import in_pieces
from seedling.progress import Progress, counted, silent

WORD = r"(?u)\b\w+\b"
CELL = 8
BINS = 9
THUMBNAIL = 8
COLOR_BINS = 16
NO_TERM = ""  # stands alone in the vocabulary of texts that have none
GRAY_BELOW = 2.0  # mean chroma deviation, in levels of LAB's 0 to 255, under which a collection counts as gray


Read = Callable[[Sequence[str]], Iterable[tuple[str, bytes | str]]]  # ids → (id, payload) pairs, in any order
ROWS_AT_ONCE = 2_048
ROWS_A_PIECE, MEGABYTES_A_PIECE = 256, 8  # that one process decodes and measures before it hands over what it found


@dataclass(frozen=True, slots=True)
class Contents:
    """The rows themselves, which are read when a learner wants them."""

    ids: NDArray[np.str_]
    read: Read

    @classmethod
    def of(cls, payloads: Sequence[bytes | str]) -> Contents:
        """Of rows that are in memory."""
        names = np.arange(len(payloads)).astype(str)
        return cls(names, lambda ids: ((one, payloads[int(one)]) for one in ids))

    def __iter__(self) -> Iterator[bytes | str]:
        """The payloads in the ids' order, a block in memory at a time."""
        for first in range(0, len(self.ids), ROWS_AT_ONCE):
            block = self.ids[first : first + ROWS_AT_ONCE].tolist()
            known = dict(self.read(block))
            yield from (known[one] for one in block)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What learners see of rows: features (n, d), dense or sparse; images for the network (n, side, side, 3) where there
    are any; contents, for an encoder that is tuned, where there is one.
    """

    features: Any
    images: NDArray[np.uint8] | None = None
    contents: Contents | None = None

    def __len__(self) -> int:
        return int(self.features.shape[0])

    def take(self, rows: NDArray[np.intp]) -> Inputs:
        """The inputs of these row numbers, in their order."""
        contents = None if self.contents is None else Contents(self.contents.ids[rows], self.contents.read)
        return Inputs(self.features[rows], None if self.images is None else self.images[rows], contents)


class FeatureMaker(ABC):
    """Payloads → Inputs; `fit_transform` first, on rows that training may see."""

    @abstractmethod
    def fit_transform(self, payloads: Iterable[bytes | str]) -> Inputs:
        """Learns from these rows and gives their features."""

    @abstractmethod
    def transform(self, payloads: Iterable[bytes | str]) -> Inputs:
        """The features of further rows."""

    def of_rows(self, ids: Sequence[str], read: Read, *, fit: bool, progress: Progress = silent) -> Inputs:
        """The features of these rows, in their order; with `fit` the maker learns from them first."""
        found: list[str] = []

        def each() -> Iterator[bytes | str]:
            for one, payload in counted(read(ids), progress, "read rows", len(ids)):
                found.append(one)
                yield payload

        inputs = self.fit_transform(each()) if fit else self.transform(each())
        place = {one: row for row, one in enumerate(found)}
        return inputs.take(np.array([place[one] for one in ids], dtype=np.intp))


class ImageFeatures(FeatureMaker):
    """A thumbnail, HOG, and (where the collection is colored) color histograms, each block of equal weight."""

    def __init__(
        self, side: int | None = None, max_megapixels: float = 64.0, network_side: int = 32, blocks: Any = None
    ) -> None:
        self.side, self.max_megapixels, self.network_side = side, max_megapixels, network_side
        self.blocks: list[tuple[NDArray[np.float32], float]] | None = blocks  # a mean and a scale each

    def fit_transform(self, payloads: Iterable[bytes | str]) -> Inputs:
        """Chooses the side by the images' size unless told, and learns each block's mean and scale."""
        remaining = iter(payloads)
        first = list(islice(remaining, 200))
        sample = [images.decode(one, self.max_megapixels).shape for one in first]  # type: ignore[arg-type]
        usual = np.median([min(shape[:2]) for shape in sample])
        self.side = self.side or (32 if usual <= 48 else 64)
        self.network_side = 16 if usual <= 16 else 32
        image_arrays, raw = self._measured(chain(first, remaining))
        self.blocks = []
        for block in raw:
            mean = block.mean(axis=0)
            parts = range(0, len(block), ROWS_AT_ONCE)
            squared = [((block[start : start + ROWS_AT_ONCE] - mean) ** 2).sum(axis=1) for start in parts]
            scale = float(np.sqrt(np.concatenate(squared).mean()))
            self.blocks.append((mean.astype(np.float32), scale if scale > 1e-6 else np.inf))
        if float(np.abs(raw[0].reshape(-1, THUMBNAIL**2, 3)[..., 1:] - 128).mean()) < GRAY_BELOW:
            self.blocks[2] = (self.blocks[2][0], np.inf)  # a gray collection has no color to speak of
        return Inputs(self._scaled(raw), image_arrays)

    def transform(self, payloads: Iterable[bytes | str]) -> Inputs:
        """The features of further images."""
        image_arrays, raw = self._measured(payloads)
        return Inputs(self._scaled(raw), image_arrays)

    def _measured(self, payloads: Iterable[bytes | str]) -> tuple[NDArray[np.uint8], list[NDArray[np.float32]]]:
        """The images as the network takes them, and the raw blocks of their features."""
        measure = Measure(self.side or 32, self.network_side, self.max_megapixels)
        parts = list(in_pieces(measure, pieces_of(payloads)))
        image_arrays = [small for small, _ in parts] or [
            np.zeros((0, measure.network_side, measure.network_side, 3), np.uint8)
        ]
        raw = [raw for _, raw in parts] or [raw_blocks(np.zeros((0, measure.side, measure.side, 3), np.uint8))]
        parts.clear()
        return np.concatenate(image_arrays), [np.concatenate(block) for block in zip(*raw, strict=True)]

    def _scaled(self, raw: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """The features; `raw` is emptied, so that each block is in memory once."""
        kept = [one for one in zip(raw, self.blocks or [], strict=True) if np.isfinite(one[1][1])]
        raw.clear()
        features = np.empty((len(kept[0][0]), sum(block.shape[1] for block, _ in kept)), np.float32)
        column = 0
        while kept:
            block, (mean, scale) = kept.pop(0)
            columns = slice(column, column + block.shape[1])
            for first in range(0, len(block), ROWS_AT_ONCE):
                rows = slice(first, first + ROWS_AT_ONCE)
                features[rows, columns] = (block[rows] - mean) / scale
            column = columns.stop
        return features


@dataclass(frozen=True)
class Measure:
    """Encoded images → what features are made of; a piece of work that any process may do.

    side: of the images that are measured, network_side: of those that the network sees.
    """

    side: int
    network_side: int
    max_megapixels: float

    def __call__(self, payloads: Sequence[bytes]) -> tuple[NDArray[np.uint8], list[NDArray[np.float32]]]:
        """(n, network_side, network_side, 3), and `raw_blocks`."""
        resized = [images.resized(images.decode(one, self.max_megapixels), self.side, self.side) for one in payloads]
        small = [images.resized(one, self.network_side, self.network_side) for one in resized]
        return np.stack(small), raw_blocks(np.stack(resized))


def pieces_of(payloads: Iterable[Any], rows: int = ROWS_A_PIECE, multiple: int = 1) -> Iterator[list[Any]]:
    """Consecutive rows, so many together at most, or as many as have `MEGABYTES_A_PIECE` (a multiple of `multiple`)."""
    piece, held = list[Any](), 0
    for payload in payloads:
        piece.append(payload)
        held += len(payload)
        if len(piece) == rows or (held > MEGABYTES_A_PIECE * 2**20 and len(piece) % multiple == 0):
            yield piece
            piece, held = [], 0
    if piece:
        yield piece


def raw_blocks(image_arrays: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Thumbnail in LAB (n, 192), HOG (n, ·), square-rooted LAB histograms (n, 48)."""
    small = np.zeros((len(image_arrays), THUMBNAIL * THUMBNAIL * 3), np.float32)
    gray = np.zeros(image_arrays.shape[:3], np.float32)
    color = np.zeros((len(image_arrays), 3 * COLOR_BINS), np.float32)
    for row, image in enumerate(image_arrays):
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
        small[row] = cv2.resize(lab, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).ravel()
        gray[row] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        bins = lab.reshape(-1, 3).astype(np.intp) * COLOR_BINS // 256 + np.arange(3) * COLOR_BINS
        color[row] = np.bincount(bins.ravel(), minlength=3 * COLOR_BINS) / len(bins)
    return [small, hog((gray / 255).astype(np.float32)), np.sqrt(color)]


def hog(gray: NDArray[np.float32], cell: int = CELL, bins: int = BINS) -> NDArray[np.float32]:
    """Histograms of oriented gradients, unsigned, linear between neighboring bins, 2×2 cells a block, L2 blocks.

    gray: (n, height, width), 0 to 1, sides multiples of `cell`. Returns (n, blocks × 4 × bins). Our own, as OpenCV 5
    has none and scikit-image's takes one image at a time.
    """
    n, height, width = gray.shape
    padded = np.pad(gray, ((0, 0), (1, 1), (1, 1)), mode="edge")
    dx = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    dy = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    strength = np.hypot(dx, dy)
    angle = (np.arctan2(dy, dx) % np.pi) / np.pi * bins
    lower = np.floor(angle)
    share = angle - lower
    first = lower.astype(np.intp) % bins
    cells = np.zeros((n, height // cell, width // cell, bins), np.float32)
    for one in range(bins):
        votes = strength * ((first == one) * (1 - share) + ((first + 1) % bins == one) * share)
        cells[..., one] = votes.reshape(n, height // cell, cell, width // cell, cell).sum(axis=(2, 4))
    around = [cells[:, :-1, :-1], cells[:, 1:, :-1], cells[:, :-1, 1:], cells[:, 1:, 1:]]
    blocks = np.concatenate(around, axis=-1)
    blocks = blocks / (np.linalg.norm(blocks, axis=-1, keepdims=True) + 0.1)
    return np.ascontiguousarray(blocks.reshape(n, int(np.prod(blocks.shape[1:]))), dtype=np.float32)


class TextFeatures(FeatureMaker):
    """TF-IDF of words and word pairs, and of character 2- to 5-grams within words, each half of the weight.

    min_rows: texts that a term must be in; max_terms: of each half, the commonest.
    """

    def __init__(self, words: Any = None, characters: Any = None, min_rows: int = 1, max_terms: int = 50_000) -> None:
        self.words, self.characters, self.min_rows, self.max_terms = words, characters, min_rows, max_terms

    def fit_transform(self, payloads: Iterable[bytes | str]) -> Inputs:
        """Learns vocabulary and document frequencies."""
        texts = [str(one) for one in payloads]
        self.words, self.characters = (self._fitted(half, texts) for half in ("words", "characters"))
        return self.transform(texts)

    def _fitted(self, half: str, texts: list[str]) -> Any:
        for least in dict.fromkeys((self.min_rows if len(texts) > 1 else 1, 1)):
            with suppress(ValueError):  # no term is in so many texts
                return make_vectorizers(min_rows=least, max_terms=self.max_terms)[half].fit(texts)
        return make_vectorizers([NO_TERM])[half].fit(texts)

    def transform(self, payloads: Iterable[bytes | str]) -> Inputs:
        """The features of further texts."""
        texts = [str(one) for one in payloads]
        if not texts:  # scikit-learn wants a row at least
            return Inputs(
                sparse.csr_matrix((0, len(self.words.vocabulary_) + len(self.characters.vocabulary_)), dtype=np.float32)
            )
        halves = [vectorizer.transform(texts) for vectorizer in (self.words, self.characters)]
        return Inputs(sparse.csr_matrix(sparse.hstack(halves) / np.float32(np.sqrt(2))))


def make_vectorizers(vocabulary: list[str] | None = None, min_rows: int = 1, max_terms: int = 50_000) -> dict[str, Any]:
    """The two halves of TextFeatures by name, unfitted, or with a vocabulary that is known already."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    shared = {"sublinear_tf": True, "max_features": max_terms, "dtype": np.float32, "vocabulary": vocabulary}
    shared["min_df"] = min_rows
    return {
        "words": TfidfVectorizer(ngram_range=(1, 2), token_pattern=WORD, **shared),
        "characters": TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **shared),
    }


def dense(features: Any, dimensions: int = 150) -> NDArray[np.float32]:
    """Features in which Euclidean neighbors make sense: dense ones as they are, sparse ones by latent semantic
    analysis (Deerwester et al. 1990), each row of length 1.
    """
    if not sparse.issparse(features):
        return np.asarray(features, dtype=np.float32)
    from sklearn.decomposition import TruncatedSVD

    reducer = TruncatedSVD(min(dimensions, min(features.shape) - 1), algorithm="arpack", random_state=0)
    reduced = reducer.fit_transform(features.astype(np.float64))
    unit: NDArray[np.float32] = (reduced / (np.linalg.norm(reduced, axis=1, keepdims=True) + 1e-9)).astype(np.float32)
    return unit

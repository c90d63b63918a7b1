"""The features of encoded rows: the encoder's output, plus surface features (colors or words) that encoders ignore."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from seedling.dataset.generation import Modality
from seedling.errors import InputError
from seedling.features.classical import Contents, FeatureMaker, Inputs, Read, TextFeatures
from seedling.features.encoder import COLOR_COLUMNS, ONE_VIEW, EncodePiece, Encoder, Features, load_encoder
from seedling.features.encoder_handle import EncoderHandle
from seedling.features.encoding import encode_rows
from seedling.features.feature_cache import FeatureCache
from seedling.features.latent_semantics import topic_directions
from seedling.features.normalization import normalize_rows
from seedling.media.images import View
from seedling.parallel.executor import this_process
from seedling.progress import Progress, silent

# The weight of colors (image) or words (text), relative to the encoder's features. Colors help with trash on a table
# and harm with clothes: a quarter keeps most of the gain and costs little (benchmarks/proving_ground.py).
SURFACE_WEIGHTS = {"image": 0.25, "text": 0.5}
VIEWS: dict[Modality, tuple[View, ...]] = {"image": ("whole", "center", "padded"), "text": ONE_VIEW}
MAX_TOPICS = 100  # dimensions of the latent semantic analysis of words
TOPIC_CACHE_PREFIX = "words"  # of the names of cache files with topics


class EncodedFeatures(FeatureMaker):
    """The encoder's features, centered and of length 1, next to surface features with less weight.

    Surface features are the colors of an image, or the words of a text (TF-IDF, then latent semantic analysis,
    Deerwester et al. 1990). Each row has length 1. surface_weight: by default that of the modality; views: of each
    image, see `Encoder.embedding`.
    """

    def __init__(  # noqa: PLR0913  (the parts of features.json, each by its name)
        self,
        handle: EncoderHandle,
        max_megapixels: float = 64.0,
        center: Features | None = None,
        words: TextFeatures | None = None,
        topics: NDArray[np.float32] | None = None,
        key: str | None = None,
        surface_weight: float | None = None,
        views: Sequence[View] | None = None,
    ) -> None:
        self.views = VIEWS[handle.modality] if views is None else tuple(views)
        self.surface_weight = SURFACE_WEIGHTS[handle.modality] if surface_weight is None else surface_weight
        self.handle, self.modality, self.max_megapixels = handle, handle.modality, max_megapixels
        self.center, self.words, self.topics, self.key = center, words, topics, key
        self._loaded: Encoder | None = None
        self._identified = False

    def __getstate__(self) -> dict[str, Any]:
        """Without the loaded encoder: another process loads its own."""
        return {**vars(self), "_loaded": None}

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded on first use. Raises InputError if it is not the one that the model was trained on."""
        if self._loaded is None:
            self.identify()
            self._loaded = load_encoder(self.handle)
        return self._loaded

    def identify(self) -> str:
        """Return the encoder's key, from its files only.

        Raises InputError if it is not the encoder that the model was trained on.
        """
        if not self._identified:
            digest = self.handle.digest
            if self.key not in {None, digest}:
                raise InputError(
                    f"The encoder '{self.handle.params.model}' is no longer the one that the model was trained on. "
                    "Restore its folder, or run `seedling run` to train a new model."
                )
            self.key, self._identified = digest, True
        return str(self.key)

    def fit_transform(self, payloads: Iterable[bytes | str]) -> Inputs:
        """Learn center and topics from these rows."""
        rows = list(payloads)
        words = self._fit_topics(rows) if self.modality == "text" else None
        return self._combined(self._encode(rows), words, Contents.of(rows), fit=True)

    def transform(self, payloads: Iterable[bytes | str]) -> Inputs:
        """Return the features of further rows, without the cache."""
        rows = list(payloads)
        if not rows:
            return self._no_rows()
        words = self._on_topics(rows) if self.modality == "text" else None
        return self._combined(self._encode(rows), words, Contents.of(rows), fit=False)

    def of_rows(self, ids: Sequence[str], read: Read, *, fit: bool, progress: Progress = silent) -> Inputs:
        """As `FeatureMaker.of_rows`, but rows that were encoded before come from the cache."""
        if len(ids) == 0:
            return self._no_rows()
        folder = self.handle.cache_folder
        key = self.identify() if self.views == ONE_VIEW else f"{self.identify()}-{'-'.join(self.views)}"
        piece = EncodePiece(self.handle, self.identify(), self.max_megapixels, self.views)
        raw = encode_rows(lambda: self.encoder, ids, read, FeatureCache(folder, key), piece, progress)
        words = self._words_of_rows(ids, read, folder, fit=fit) if self.modality == "text" else None
        return self._combined(raw, words, Contents(np.asarray(ids, dtype=str), read), fit=fit)

    def _words_of_rows(self, ids: Sequence[str], read: Read, folder: Path, *, fit: bool) -> Features:
        """Return the rows' topics. Topics of earlier calls are cached, which saves later rounds seconds."""
        if fit:
            text_of_id = dict(read(list(dict.fromkeys(ids))))
            fitted_topics = self._fit_topics([text_of_id[row_id] for row_id in ids])
            if this_process().leads:
                for outdated in folder.glob(f"{TOPIC_CACHE_PREFIX}-*"):
                    outdated.unlink(missing_ok=True)
                self._topic_cache(folder).put(ids, fitted_topics)
            return fitted_topics
        cache = self._topic_cache(folder)
        topics = cache.get(ids)
        missing = [row_id for row_id in dict.fromkeys(ids) if row_id not in topics]
        if missing:
            texts = dict(read(missing))
            new_topics = self._on_topics([texts[row_id] for row_id in missing])
            cache.put(missing, new_topics)
            topics.update(zip(missing, new_topics, strict=True))
        return np.stack([topics[row_id] for row_id in ids])

    def _topic_cache(self, folder: Path) -> FeatureCache:
        if self.words is None or self.topics is None:
            raise InputError("The features were not fitted.")
        key = hashlib.blake2b(self.topics.tobytes(), digest_size=16)
        for half in (self.words.words, self.words.characters):
            key.update("\n".join(half.get_feature_names_out()).encode() + half.idf_.astype(np.float32).tobytes())
        return FeatureCache(folder, f"{TOPIC_CACHE_PREFIX}-{key.hexdigest()}", np.float32)

    @property
    def encoder_block(self) -> tuple[int, float]:
        """The number of the encoder's columns, which come first, and the factor that gives their rows length 1."""
        n_columns = 0 if self.center is None else len(self.center)
        n_surface = COLOR_COLUMNS if self.topics is None else self.topics.shape[1]
        return n_columns - n_surface, float(np.hypot(1.0, self.surface_weight))

    def _no_rows(self) -> Inputs:
        return Inputs(np.zeros((0, 0 if self.center is None else len(self.center)), np.float32))

    def _encode(self, payloads: Sequence[bytes | str]) -> Features:
        return np.concatenate(list(self.encoder.encode(payloads, self.max_megapixels, self.views)))

    def _combined(self, raw: Features, words: Features | None, contents: Contents, *, fit: bool) -> Inputs:
        """Combine the feature blocks.

        words: (n, topics) for texts; None for images, whose colors are the last columns of `raw`.
        """
        blocks = (
            [normalize_rows(raw[:, :-COLOR_COLUMNS]), normalize_rows(raw[:, -COLOR_COLUMNS:])]
            if words is None
            else [normalize_rows(raw), words]
        )
        centered = np.concatenate(blocks, axis=1)
        if fit or self.center is None:
            self.center = centered.mean(axis=0, dtype=np.float64).astype(np.float32)
        centered = centered - self.center
        width = blocks[0].shape[1]
        features = normalize_rows(
            np.concatenate(
                [normalize_rows(centered[:, :width]), self.surface_weight * normalize_rows(centered[:, width:])],
                axis=1,
            )
        )
        return Inputs(features, contents=contents)

    def _fit_topics(self, texts: Sequence[Any]) -> Features:
        """Learn the topics from these texts and return them."""
        self.words = TextFeatures(min_rows=2, max_terms=20_000)
        terms = self.words.fit_transform(texts).features
        n_topics = min(MAX_TOPICS, min(terms.shape) - 1)
        if n_topics < 1:
            self.topics = np.zeros((terms.shape[1], 1), np.float32)
            return self._projected(terms, self.topics)
        # C order, because safetensors writes an array's memory without reordering.
        self.topics = np.ascontiguousarray(topic_directions(terms, n_topics).astype(np.float16).astype(np.float32))
        return self._projected(terms, self.topics)

    def _on_topics(self, texts: Sequence[Any]) -> Features:
        if self.words is None or self.topics is None:
            raise InputError("The features were not fitted.")
        return self._projected(self.words.transform(texts).features, self.topics)

    @staticmethod
    def _projected(terms: Any, topics: NDArray[np.float32]) -> Features:
        """(n, topics), rows of length 1. terms: (n, n_terms), sparse."""
        projected: Features = normalize_rows(np.asarray(sparse.csr_matrix(terms) @ topics, dtype=np.float32))
        return projected

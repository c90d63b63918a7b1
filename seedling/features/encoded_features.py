"""What learners see of encoded rows: the encoder's features, and beside them what encoders are taught to overlook."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from seedling.errors import InputError
from seedling.features.classical import Contents, FeatureMaker, Inputs, Read, TextFeatures
from seedling.features.encoder import COLORS, EncodePiece, Encoder, Features, load_encoder
from seedling.features.encoder_handle import EncoderHandle
from seedling.features.feature_cache import FeatureCache, encode_rows
from seedling.features.latent_semantics import topic_directions
from seedling.parallel.executor import this_process
from seedling.progress import Progress, silent

SURFACE = 0.5  # what colors or words weigh beside the encoder's features
TOPICS = 100  # dimensions of the words' latent semantic analysis
WORDS = "words"  # how files of kept topics begin


class EncodedFeatures(FeatureMaker):
    """The encoder's features, centered and of length 1, beside half a weight of what encoders are taught to overlook:
    an image's colors, a text's words (TF-IDF, latent semantic analysis after Deerwester et al. 1990); together of length 1.
    """

    def __init__(
        self,
        handle: EncoderHandle,
        max_megapixels: float = 64.0,
        center: Features | None = None,
        words: TextFeatures | None = None,
        topics: NDArray[np.float32] | None = None,
        key: str | None = None,
    ) -> None:
        self.handle, self.modality, self.max_megapixels = handle, handle.modality, max_megapixels
        self.center, self.words, self.topics, self.key = center, words, topics, key
        self._loaded: Encoder | None = None
        self._identified = False

    def __getstate__(self) -> dict[str, Any]:
        """Without the loaded encoder: another process loads its own."""
        return {**vars(self), "_loaded": None}

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded when it is first needed. Raises InputError where it is not what the model learnt from."""
        if self._loaded is None:
            self.identify()
            self._loaded = load_encoder(self.handle)
        return self._loaded

    def identify(self) -> str:
        """The encoder's key, from its files alone. Raises InputError where it is not what the model learnt from."""
        if not self._identified:
            found = self.handle.digest
            if self.key not in {None, found}:
                raise InputError(
                    f"The encoder '{self.handle.params.model}' is no longer the one that the model was trained on: "
                    "bring its folder back, or run `seedling run` to train anew."
                )
            self.key, self._identified = found, True
        return str(self.key)

    def fit_transform(self, payloads: Iterable[bytes | str]) -> Inputs:
        """Learns center and topics from these rows."""
        listed = list(payloads)
        words = self._fit_topics(listed) if self.modality == "text" else None
        return self._combined(self._encode(listed), words, Contents.of(listed), fit=True)

    def transform(self, payloads: Iterable[bytes | str]) -> Inputs:
        """The features of further rows, which are not looked up in the cache."""
        listed = list(payloads)
        if not listed:
            return self._nothing()
        words = self._on_topics(listed) if self.modality == "text" else None
        return self._combined(self._encode(listed), words, Contents.of(listed), fit=False)

    def of_rows(self, ids: Sequence[str], read: Read, *, fit: bool, progress: Progress = silent) -> Inputs:
        """As the ground's, but rows that were encoded before are not encoded again."""
        if len(ids) == 0:
            return self._nothing()
        folder = self.handle.cache_folder
        cache = FeatureCache(folder, self.identify())
        remote = EncodePiece(self.handle, self.identify(), self.max_megapixels)
        raw = encode_rows(lambda: self.encoder, ids, read, cache, self.max_megapixels, progress, remote)
        words = self._words_of_rows(ids, read, folder, fit=fit) if self.modality == "text" else None
        return self._combined(raw, words, Contents(np.asarray(ids, dtype=str), read), fit=fit)

    def _words_of_rows(self, ids: Sequence[str], read: Read, folder: Path, *, fit: bool) -> Features:
        """The rows' topics. Those of rows that were asked for before are read: to count words again costs later rounds seconds."""
        if fit:
            known = dict(read(list(dict.fromkeys(ids))))
            found = self._fit_topics([known[one] for one in ids])
            if this_process().leads:
                for outdated in folder.glob(f"{WORDS}-*"):
                    outdated.unlink(missing_ok=True)
                self._kept_topics(folder).put(ids, found)
            return found
        cache = self._kept_topics(folder)
        topics = cache.get(ids)
        missing = [one for one in dict.fromkeys(ids) if one not in topics]
        if missing:
            texts = dict(read(missing))
            made = self._on_topics([texts[one] for one in missing])
            cache.put(missing, made)
            topics.update(zip(missing, made, strict=True))
        return np.stack([topics[one] for one in ids])

    def _kept_topics(self, folder: Path) -> FeatureCache:
        if self.words is None or self.topics is None:
            raise InputError("The features were not fitted.")
        key = hashlib.blake2b(self.topics.tobytes(), digest_size=16)
        for half in (self.words.words, self.words.characters):
            key.update("\n".join(half.get_feature_names_out()).encode() + half.idf_.astype(np.float32).tobytes())
        return FeatureCache(folder, f"{WORDS}-{key.hexdigest()}", np.float32)

    def _nothing(self) -> Inputs:
        return Inputs(np.zeros((0, 0 if self.center is None else len(self.center)), np.float32))

    def _encode(self, payloads: Sequence[bytes | str]) -> Features:
        return np.concatenate(list(self.encoder.encode(payloads, self.max_megapixels)))

    def _combined(self, raw: Features, words: Features | None, contents: Contents, *, fit: bool) -> Inputs:
        """words: (n, topics) of texts, None of images, whose colors are the last part of what the encoder gives."""
        blocks = [unit(raw[:, :-COLORS]), unit(raw[:, -COLORS:])] if words is None else [unit(raw), words]
        joined = np.concatenate(blocks, axis=1)
        if fit or self.center is None:
            self.center = joined.mean(axis=0, dtype=np.float64).astype(np.float32)
        joined = joined - self.center
        width = blocks[0].shape[1]
        both = unit(np.concatenate([unit(joined[:, :width]), SURFACE * unit(joined[:, width:])], axis=1))
        return Inputs(both, contents=contents)

    def _fit_topics(self, texts: Sequence[Any]) -> Features:
        """Learns the topics from these texts and gives them."""
        self.words = TextFeatures(min_rows=2, max_terms=20_000)
        found = self.words.fit_transform(texts).features
        many = min(TOPICS, min(found.shape) - 1)
        if many < 1:
            self.topics = np.zeros((found.shape[1], 1), np.float32)
            return self._projected(found)
        # In C's order, as safetensors writes an array's memory as it lies.
        self.topics = np.ascontiguousarray(topic_directions(found, many).astype(np.float16).astype(np.float32))
        return self._projected(found)

    def _on_topics(self, texts: Sequence[Any]) -> Features:
        if self.words is None:
            raise InputError("The features were not fitted.")
        return self._projected(self.words.transform(texts).features)

    def _projected(self, terms: Any) -> Features:
        """(n, topics), each row of length 1. terms: (n, n_terms), sparse."""
        return unit(np.asarray(sparse.csr_matrix(terms) @ self.topics, dtype=np.float32))


def unit(rows: Features) -> Features:
    """Each row of length 1, zeros as they are."""
    scaled: Features = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return scaled

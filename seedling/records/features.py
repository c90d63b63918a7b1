"""models/<round>/features.json: the fitted features of a model, one class per kind. train writes it.

The files come from other people, too: sizes are limited, and each number is finite.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from seedling.config.params import EncoderParams
from seedling.media.images import View
from seedling.records.record import Record, RecordPart

MAX_SIDE = 128  # pixels, as train.image_side in params.yaml
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Side = Annotated[int, Field(strict=True, ge=1, le=MAX_SIDE)]


class TermsRecord(RecordPart):
    """The terms of one vectorizer, in the order of its columns, with their inverse document frequencies."""

    terms: tuple[str, ...]
    idf: tuple[Finite, ...]


class TermHalvesRecord(RecordPart):
    """The terms of both TF-IDF vectorizers of texts."""

    words: TermsRecord
    characters: TermsRecord


class TextFeaturesRecord(TermHalvesRecord, Record):
    """The features of texts without an encoder."""


class BlockRecord(RecordPart):
    """How a block of image features is normalized: (block - mean) / scale. scale: None if the block is left out."""

    mean: tuple[Finite, ...]
    scale: Positive | None


class ImageFeaturesRecord(Record):
    """The features of images without an encoder.

    side, network_side: pixels of the images that features are computed from, and of those that the network gets.
    """

    side: Side
    network_side: Side
    max_megapixels: Positive
    blocks: tuple[BlockRecord, ...]


class EncodedFeaturesRecord(Record):
    """The features of an encoder; its weights are not part of the model.

    key: hash of the encoder's files and settings, None if they were not read; words: terms of the texts, if the
    features include LSA topics; surface_weight: of colors or words, not written if it is 0.5; views: of each image, see
    `seedling.media.images.view_of`, not written if it is the whole image alone.
    """

    encoder: EncoderParams
    key: str | None
    max_megapixels: Positive
    surface_weight: Positive = Field(default=0.5, exclude_if=lambda weight: weight == 0.5)
    views: Annotated[tuple[View, ...], Field(min_length=1, max_length=3)] = Field(
        default=("whole",), exclude_if=lambda views: views == ("whole",)
    )
    words: TermHalvesRecord | None = Field(default=None, exclude_if=lambda words: words is None)

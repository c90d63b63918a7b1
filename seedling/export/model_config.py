"""config.json of an exported model: its classes and each input of model.onnx, for predict.py and other runtimes."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from seedling.dataset.generation import Modality
from seedling.features.encoded_features import EncodedFeatures
from seedling.features.encoder import ONE_VIEW
from seedling.media.image_modes import Color
from seedling.media.images import View
from seedling.models.portable import Portable
from seedling.models.predictor import Predictor
from seedling.records.record import RecordPart

ENCODED_SIDE = 64  # pixels of the images that color features are computed from, beside an encoder


class InputRecord(RecordPart):
    """An input of the graph. description: what it contains, and its shape; the other keys depend on the input.

    height, width, side: pixels; views: of each image, in their order, None for the whole image alone; mean, deviation:
    per channel, of values from 0 to 1; at_most: tokens; unknown: id of the token that takes the place of a text without
    tokens.
    """

    model_config = ConfigDict(populate_by_name=True)

    description: str = Field(validation_alias="is", serialization_alias="is")
    height: int | None = None
    width: int | None = None
    views: tuple[View, ...] | None = None
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None
    side: int | None = None
    at_most: int | None = None
    unknown: int | None = None


class ModelConfigRecord(RecordPart):
    """The content of config.json. background: color behind transparent images; None: chosen per image."""

    modality: Modality
    classes: tuple[str, ...]
    abstain_below: float
    max_megapixels: float
    background: Color | None
    round: int
    inputs: dict[str, InputRecord]

    def as_json(self) -> dict[str, Any]:
        """The content of the file, without the keys that an input does not have."""
        inputs = {
            name: graph_input.model_dump(mode="json", by_alias=True, exclude_none=True)
            for name, graph_input in self.inputs.items()
        }
        return {**self.model_dump(mode="json", exclude={"inputs"}), "inputs": inputs}


def model_config(predictor: Predictor, portable: Portable) -> ModelConfigRecord:
    """Describe the model and each input of its graph."""
    return ModelConfigRecord(
        modality=predictor.modality,
        classes=tuple(predictor.model.classes),
        abstain_below=predictor.model.abstain_below,
        max_megapixels=predictor.max_megapixels,
        background=predictor.background,
        round=predictor.round,
        inputs={name: _graph_input(name, portable.maker) for name in portable.inputs},
    )


def _graph_input(name: str, maker: Any) -> InputRecord:
    """Describe one input. maker: the model's features, of the kind that has such an input."""
    if name == "pixel_values":
        preparation = maker.encoder.prepare
        has_views = maker.views != ONE_VIEW
        return InputRecord(
            description=f"(RGB / 255 - mean) / deviation; (n, {'views, ' if has_views else ''}3, height, width)",
            height=preparation.height,
            width=preparation.width,
            views=maker.views if has_views else None,
            mean=preparation.mean,
            deviation=preparation.deviation,
        )
    if name in {"images", "small"}:
        if isinstance(maker, EncodedFeatures):
            side = ENCODED_SIDE
        else:
            side = maker.side if name == "images" else maker.network_side
        return InputRecord(description="the whole image as RGB, 0 to 255; (n, side, side, 3)", side=side)
    if name == "input_ids":
        return InputRecord(
            description="token ids of tokenizer.json, padded with 0; (n, tokens)",
            at_most=maker.encoder.max_tokens,
            unknown=maker.encoder.prepare.unk_token_id or 0,
        )
    if name == "attention_mask":
        return InputRecord(description="1 for a token, 0 for padding; (n, tokens)")
    return InputRecord(description="TF-IDF of the terms in words.json, as predict.py computes it; (n, terms)")

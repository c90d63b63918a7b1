"""The whole model as one torch module: what is exported as ONNX, and what gradients are taken of.

Says what the model says, from pixels that were brought to their size, from token numbers, or from counted words on.
What is left outside is what no such graph has: decoding, resizing, splitting texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from seedling.errors import InputError
from seedling.features.classical import FeatureMaker, ImageFeatures, TextFeatures
from seedling.features.encoded_features import EncodedFeatures
from seedling.media import images
from seedling.models.model import TrainedModel
from seedling.models.portable_features import OfEncoder, OfImages
from seedling.models.portable_heads import as_module
from seedling.stats.statistics import SMALLEST

COLOR_SIDE = 64  # of the image that colors are counted on, beside an encoder
TAKES = {"network": "small", "fine_tuned": "ready"}  # what a learner is asked with; the others: features


class Portable(nn.Module):
    """A trained model, from its inputs to probabilities.

    `inputs` names the tensors that it is called with, in their order: `images` (n, side, side, 3) and `small` (n, its side, its side, 3), 0 to 255; or `pixel_values` (n, 3, height, width) and
    `small` (n, 64, 64, 3); or `input_ids` and `attention_mask` (n, tokens) and `words` (n, n_terms); or `words` alone.
    smooth: whatever is a step is given a slope, so that gradients lead somewhere; the probabilities are then near, not the same.
    """

    def __init__(self, model: TrainedModel, smooth: bool = False) -> None:
        super().__init__()
        self.maker: FeatureMaker = model.features
        self.kind = _kind(self.maker)
        self.of_images = OfImages(self.maker, smooth) if isinstance(self.maker, ImageFeatures) else None
        self.of_encoder = OfEncoder(self.maker, smooth) if isinstance(self.maker, EncodedFeatures) else None
        self.members = nn.ModuleList(
            nn.ModuleList(as_module(half, len(model.classes), smooth) for half in member) for member in model.members
        )
        names = {one for member in model.members for half in member for one in [half.name]}
        self.needs_small = self.kind == "images" and "network" in names
        self.takes = [[TAKES.get(half.name, "features") for half in member] for member in model.members]
        self.temperatures, self.temperature = list(model.temperatures), model.temperature
        self.votes = [float(one) / sum(model.votes) for one in model.votes]

    @property
    def inputs(self) -> list[str]:
        """The names of the tensors."""
        of_kind = {
            "images": ["images", *(["small"] if self.needs_small else [])],
            "encoded images": ["pixel_values", "small"],
            "encoded texts": ["input_ids", "attention_mask", "words"],
            "texts": ["words"],
        }
        return of_kind[self.kind]

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """(n, n_classes), rows sum to 1."""
        given = dict(zip(self.inputs, inputs, strict=True))
        ready: dict[str, torch.Tensor] = {
            name: one for name, one in given.items() if name not in {"images", "small", "words"}
        }
        features = self._features(given, ready)
        shares = torch.zeros(())
        for place, takes in enumerate(self.takes):
            member: Any = self.members[place]
            halves = [self._ask(half, one, features, given, ready) for half, one in zip(member, takes, strict=True)]
            logits = torch.stack(halves).mean(dim=0)
            shares = shares + self.votes[place] * torch.softmax(logits / self.temperatures[place], dim=1)
        return torch.softmax(torch.log(shares.clamp(min=SMALLEST)) / self.temperature, dim=1)

    def _features(self, given: Mapping[str, torch.Tensor], ready: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if self.of_images is not None:
            return torch.as_tensor(self.of_images(given["images"]))
        if self.of_encoder is not None:
            return torch.as_tensor(self.of_encoder(ready, given["small"] if "small" in given else given["words"]))
        return given["words"]

    @staticmethod
    def _ask(
        half: Any, takes: str, features: torch.Tensor, given: Mapping[str, torch.Tensor], ready: Any
    ) -> torch.Tensor:
        asked = (given["small"],) if takes == "small" else (ready, features) if takes == "ready" else (features,)
        return torch.as_tensor(half(*asked))

    def prepared(self, payloads: Sequence[Any], max_megapixels: float = 64.0) -> tuple[torch.Tensor, ...]:
        """The tensors of these encoded images or texts."""
        if self.kind == "texts":
            return (self._words(self.maker, payloads),)
        if isinstance(self.maker, EncodedFeatures):
            encoder = self.maker.encoder
            if self.kind == "encoded texts":
                made = encoder.batch(encoder.prepared(payloads))
                return made["input_ids"].cpu(), made["attention_mask"].cpu(), self._words(self.maker.words, payloads)
            pixels = [images.decode(one, max_megapixels) for one in payloads]
            return encoder.prepare(pixels).float(), _area(pixels, COLOR_SIDE)
        pixels = [images.decode(one, max_megapixels) for one in payloads]
        made_of: Any = self.maker
        shown = np.stack([images.resized(one, made_of.side, made_of.side) for one in pixels])
        if not self.needs_small:
            return (torch.from_numpy(shown),)
        small = np.stack([images.resized(one, made_of.network_side, made_of.network_side) for one in shown])
        return torch.from_numpy(shown), torch.from_numpy(small)

    @staticmethod
    def _words(maker: Any, texts: Sequence[Any]) -> torch.Tensor:
        counted: Any = maker.transform([str(one) for one in texts]).features
        return torch.from_numpy(np.asarray(counted.toarray(), dtype=np.float32))


def _kind(maker: FeatureMaker) -> str:
    if isinstance(maker, ImageFeatures):
        return "images"
    if isinstance(maker, EncodedFeatures):
        return "encoded images" if maker.modality == "image" else "encoded texts"
    if isinstance(maker, TextFeatures):
        return "texts"
    raise InputError(f"{type(maker).__name__} has no graph.")


def _area(pixels: Sequence[images.Pixels], side: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([cv2.resize(one, (side, side), interpolation=cv2.INTER_AREA) for one in pixels]))

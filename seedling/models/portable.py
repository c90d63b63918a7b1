"""The whole model as one torch module, used for ONNX export and for gradients.

Computes the model's probabilities from resized pixels, token numbers or TF-IDF term weights. Decoding, resizing and
tokenizing stay outside the graph.
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
from seedling.models.portable_features import EncodedFeaturesModule, ImageFeaturesModule
from seedling.models.portable_heads import as_module
from seedling.stats.statistics import SMALLEST

COLOR_SIDE = 64  # pixels, of the image whose color histogram is used with an encoder
INPUT_KINDS = {"network": "small", "fine_tuned": "encoder inputs"}  # the others take features


class Portable(nn.Module):
    """A trained model as a module, from its input tensors to probabilities.

    `inputs` names the tensors that it is called with, in order: `images` (n, side, side, 3) and, for the network,
    `small` (n, network_side, network_side, 3), both 0 to 255; or `pixel_values` (n, 3, height, width), with several
    views of an image (n, views, 3, height, width), and `small` (n, 64, 64, 3); or `input_ids` and `attention_mask` (n,
    tokens) and `words` (n, n_terms); or `words` alone.
    """

    def __init__(self, model: TrainedModel, smooth: bool = False) -> None:
        super().__init__()
        self.maker: FeatureMaker = model.features
        self.kind = _kind(self.maker)
        self.of_images = ImageFeaturesModule(self.maker, smooth) if isinstance(self.maker, ImageFeatures) else None
        self.of_encoder = EncodedFeaturesModule(self.maker, smooth) if isinstance(self.maker, EncodedFeatures) else None
        self.members = nn.ModuleList(
            nn.ModuleList(as_module(half, len(model.classes), smooth) for half in member) for member in model.members
        )
        names = {half.name for member in model.members for half in member}
        self.needs_small = self.kind == "images" and "network" in names
        self.input_kinds = [[INPUT_KINDS.get(half.name, "features") for half in member] for member in model.members]
        self.temperatures, self.temperature = list(model.temperatures), model.temperature
        self.votes = [float(vote) / sum(model.votes) for vote in model.votes]

    @property
    def inputs(self) -> list[str]:
        """The names of the input tensors."""
        of_kind = {
            "images": ["images", *(["small"] if self.needs_small else [])],
            "encoded images": ["pixel_values", "small"],
            "encoded texts": ["input_ids", "attention_mask", "words"],
            "texts": ["words"],
        }
        return of_kind[self.kind]

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """(n, n_classes), rows sum to 1."""
        by_name = dict(zip(self.inputs, inputs, strict=True))
        encoder_inputs: dict[str, torch.Tensor] = {
            name: tensor for name, tensor in by_name.items() if name not in {"images", "small", "words"}
        }
        features = self._features(by_name, encoder_inputs)
        probabilities = torch.zeros(())
        for member_index, kinds in enumerate(self.input_kinds):
            member: Any = self.members[member_index]
            halves = [
                self._learner_logits(half, kind, features, by_name, encoder_inputs)
                for half, kind in zip(member, kinds, strict=True)
            ]
            logits = torch.stack(halves).mean(dim=0)
            member_probabilities = torch.softmax(logits / self.temperatures[member_index], dim=1)
            probabilities = probabilities + self.votes[member_index] * member_probabilities
        return torch.softmax(torch.log(probabilities.clamp(min=SMALLEST)) / self.temperature, dim=1)

    def _features(
        self, by_name: Mapping[str, torch.Tensor], encoder_inputs: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        if self.of_images is not None:
            return torch.as_tensor(self.of_images(by_name["images"]))
        if self.of_encoder is not None:
            surface_input = by_name["small"] if "small" in by_name else by_name["words"]
            return torch.as_tensor(self.of_encoder(encoder_inputs, surface_input))
        return by_name["words"]

    @staticmethod
    def _learner_logits(
        half: Any, kind: str, features: torch.Tensor, by_name: Mapping[str, torch.Tensor], encoder_inputs: Any
    ) -> torch.Tensor:
        if kind == "small":
            return torch.as_tensor(half(by_name["small"]))
        return torch.as_tensor(half(encoder_inputs, features) if kind == "encoder inputs" else half(features))

    def prepared(self, payloads: Sequence[Any], max_megapixels: float = 64.0) -> tuple[torch.Tensor, ...]:
        """Return the input tensors of encoded images or texts."""
        if self.kind == "texts":
            return (self._words(self.maker, payloads),)
        if isinstance(self.maker, EncodedFeatures):
            encoder = self.maker.encoder
            if self.kind == "encoded texts":
                batch = encoder.batch(encoder.prepared(payloads))
                return batch["input_ids"].cpu(), batch["attention_mask"].cpu(), self._words(self.maker.words, payloads)
            pixels = [images.decode(payload, max_megapixels) for payload in payloads]
            return encoder.prepare(pixels, self.maker.views).float(), _resized(pixels, COLOR_SIDE)
        pixels = [images.decode(payload, max_megapixels) for payload in payloads]
        maker: Any = self.maker
        resized = np.stack([images.resized(image, maker.side, maker.side) for image in pixels])
        if not self.needs_small:
            return (torch.from_numpy(resized),)
        small = np.stack([images.resized(image, maker.network_side, maker.network_side) for image in resized])
        return torch.from_numpy(resized), torch.from_numpy(small)

    @staticmethod
    def _words(maker: Any, texts: Sequence[Any]) -> torch.Tensor:
        term_weights: Any = maker.transform([str(text) for text in texts]).features
        return torch.from_numpy(np.asarray(term_weights.toarray(), dtype=np.float32))


def _kind(maker: FeatureMaker) -> str:
    if isinstance(maker, ImageFeatures):
        return "images"
    if isinstance(maker, EncodedFeatures):
        return "encoded images" if maker.modality == "image" else "encoded texts"
    if isinstance(maker, TextFeatures):
        return "texts"
    raise InputError(f"{type(maker).__name__} cannot be converted to a torch module.")


def _resized(pixels: Sequence[images.Pixels], side: int) -> torch.Tensor:
    return torch.from_numpy(
        np.stack([cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in pixels])
    )

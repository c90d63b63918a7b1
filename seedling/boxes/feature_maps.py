"""The feature maps of a pretrained convolutional model at the strides 8, 16 and 32, for a detector on top of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from seedling.config.params import EncoderParams
from seedling.errors import InputError
from seedling.features.encoder import load_encoder
from seedling.features.encoder_handle import EncoderHandle
from seedling.features.pretrained import find_pretrained

STRIDES = (8, 16, 32)
PROBE_SIDE_PIXELS = 224  # vision transformers take no other size
OPTION = "--backbone"
Pixels = NDArray[np.uint8]
"""(height, width, 3): red, green and blue."""


@dataclass(frozen=True)
class Backbone:
    """A frozen convolutional model. layers: the index of the last hidden state of each stride; channels: of these."""

    model: Any
    layers: tuple[int, ...]
    channels: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def load(cls, model: str) -> Backbone:
        """Load a model: a folder that transformers saved, or a name on the Hugging Face Hub.

        Raises InputError if there is none, or it has no feature maps of these strides.
        """
        folder = find_pretrained(EncoderParams(model=model), Path(), "image", OPTION)
        encoder = load_encoder(EncoderHandle(EncoderParams(model=str(folder)), "image", Path()))
        with torch.inference_mode():
            states = _hidden_states(encoder.model, torch.zeros(1, 3, PROBE_SIDE_PIXELS, PROBE_SIDE_PIXELS))
        layers, channels = [], []
        for stride in STRIDES:
            of_stride = [n for n, state in enumerate(states) if state.shape[-1] == PROBE_SIDE_PIXELS // stride]
            if not of_stride:
                raise InputError(
                    f"The model {model} has no feature map of stride {stride}: set {OPTION} to a convolutional model "
                    "such as MobileNet, ResNet or ConvNeXt."
                )
            layers.append(of_stride[-1])
            channels.append(states[of_stride[-1]].shape[1])
        return cls(encoder.model, tuple(layers), tuple(channels), encoder.prepare.mean, encoder.prepare.deviation)

    def maps(self, images: Sequence[Pixels]) -> list[torch.Tensor]:
        """One tensor (n_images, channels, height / stride, width / stride) per stride.

        images: of one size, whose sides are multiples of 32 pixels.
        """
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255.0
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        with torch.inference_mode():
            normalized = ((pixels - mean) / std).to(memory_format=torch.channels_last)
            states = _hidden_states(self.model, normalized)
        return [states[layer].clone() for layer in self.layers]


def _hidden_states(model: nn.Module, pixels: torch.Tensor) -> list[torch.Tensor]:
    """The outputs of the model's layers that are feature maps."""
    output = model(pixels, output_hidden_states=True)
    return [state for state in output.hidden_states if state.dim() == 4]

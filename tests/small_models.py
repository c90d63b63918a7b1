"""A model of one round that tells rain from sun, or dark images from bright ones, saved as train saves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from round_records import member, model_record

from seedling.config.params import WorkspaceConfig
from seedling.dataset.generation import Modality
from seedling.media import images
from seedling.models.heads import Head
from seedling.models.saving import make_features, save_features, save_learner
from seedling.train.round_decision import RoundDecision


def grown(folder: Path, modality: Modality, below: float = 0.0) -> Path:
    """A workspace of one round: a model that tells rain from sun, or dark images from bright ones."""
    model = folder / "models" / "0"
    texts = [f"{word} over the hills, day {number}" for number in range(12) for word in ("rain", "sun")]
    image_arrays = [image(40 + 150 * (number % 2) + number) for number in range(24)]
    maker = make_features(None, None, WorkspaceConfig(modality=modality))
    head = Head("logistic_regression", 0, 2)
    rows = texts if modality == "text" else image_arrays
    head.fit(maker.fit_transform(rows), np.eye(2)[np.arange(24) % 2], np.ones(24))
    save_learner(head, model / "half-0" / "lr")
    save_features(maker, model)
    model_record(member(), threshold=below, modality=modality).write(model / "model.json")
    write_decision(model, accepted_round=0)
    return folder


def write_decision(model: Path, *, accepted_round: int) -> None:
    """The decision of a round of no rows, after which the model of `accepted_round` counts."""
    round_decision = RoundDecision(int(model.name), "accepted", False, "the start", accepted_round, 0)
    round_decision.record.write(model / "decision.json")


def image(level: int) -> bytes:
    """Gray with a gradient, so that there is something to see."""
    pixels = np.clip(level + np.arange(400).reshape(20, 20) // 20, 0, 255).astype(np.uint8)
    return images.encode(np.repeat(pixels[..., None], 3, axis=2))

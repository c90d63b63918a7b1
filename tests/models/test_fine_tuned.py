"""Fine-tuning: adapters learn what the frozen encoder does not encode, are saved and loaded, and leave the encoder
unchanged.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from seedling.config.params import EncoderParams
from seedling.dataset.generation import Modality
from seedling.errors import InputError
from seedling.features.classical import Inputs
from seedling.features.encoded_features import EncodedFeatures
from seedling.features.encoder_handle import EncoderHandle
from seedling.media.images import encode
from seedling.models.fine_tuned import FineTuned, contrastive_loss, sample_batch, with_adapters
from seedling.models.saving import load_features, load_learner, save_features, save_learner
from seedling.models.training import FitContext

NAMES = ["red apple", "green bus"]  # the words of each class; the others are noise
NOISE = ["runs", "falls", "the", "a"]


def texts(count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Rows of six words, of which one decides the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    rows = []
    for label in labels:
        words = list(rng.choice(NOISE, 5))
        words.insert(int(rng.integers(6)), str(rng.choice(NAMES[label].split())))
        rows.append(" ".join(words))
    return rows, labels


def maker_of(folder: Path, modality: Modality) -> EncodedFeatures:
    return EncodedFeatures(EncoderHandle(EncoderParams(model=str(folder)), modality, folder))


def fitted(maker: EncodedFeatures, inputs: Inputs, labels: np.ndarray, steps: int = 300) -> FineTuned:
    learner = FineTuned(FitContext(2, seed=1, steps=steps, maker=maker))
    learner.fit(inputs, np.eye(2)[labels], np.ones(len(labels)))
    return learner


@pytest.mark.slow
def test_fine_tuning_on_texts_separates_classes_and_can_be_saved_and_loaded(of_texts: Path, tmp_path: Path) -> None:
    """On unseen rows, by one word of six; two fits give the same bytes, and the loaded learner the same logits."""
    maker = maker_of(of_texts, "text")
    rows, labels = texts(40, 0)
    unseen, truth = texts(60, 1)
    before = {name: tensor.clone() for name, tensor in maker.encoder.model.state_dict().items()}
    inputs = maker.fit_transform(rows)
    learner = fitted(maker, inputs, labels)
    unseen_inputs = maker.transform(unseen)
    assert (learner.logits(unseen_inputs).argmax(axis=1) == truth).mean() >= 0.95
    assert all((tensor == before[name]).all() for name, tensor in maker.encoder.model.state_dict().items())
    save_learner(learner, tmp_path / "one")
    save_learner(fitted(maker, inputs, labels), tmp_path / "two")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    save_features(maker, tmp_path)
    loaded = load_learner(
        "fine_tuned", tmp_path / "one", FitContext(2, maker=load_features(tmp_path, "text", tmp_path))
    )
    assert loaded.logits(unseen_inputs) == pytest.approx(learner.logits(unseen_inputs), abs=1e-5)


@pytest.mark.slow
def test_fine_tuning_works_on_images(of_images: Path) -> None:
    """Bright and dark squares in noise, with convolutions of the image encoder."""
    rng = np.random.default_rng(2)
    labels = np.arange(24) % 2
    pixels = [rng.integers(0, 120, (32, 32, 3)).astype(np.uint8) + np.uint8(100 * label) for label in labels]
    maker = maker_of(of_images, "image")
    inputs = maker.fit_transform([encode(image_pixels) for image_pixels in pixels])
    learner = fitted(maker, inputs, labels, steps=50)
    assert (learner.logits(inputs).argmax(axis=1) == labels).mean() >= 0.95


def test_new_adapters_do_not_change_the_encoder(of_texts: Path) -> None:
    """An encoder with untrained adapters gives the same features, up to the last digit of float16."""
    encoder = maker_of(of_texts, "text").encoder
    ready = encoder.batch(encoder.prepared(["the red apple falls", "a bus"]))
    with torch.no_grad():
        before = encoder.embedded(ready)
        model = with_adapters(encoder, 5)
        after = encoder._pooled(model(**ready), ready["attention_mask"])
    assert torch.allclose(before, after, atol=1e-6)
    assert 0 < sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) < 10_000


def test_a_batch_has_up_to_eight_classes_and_draws_rows_by_weight() -> None:
    """Of twenty classes, eight with four rows each; of two classes, sixteen rows each; rows of weight 0 are never
    drawn.
    """
    draw = torch.Generator().manual_seed(0)
    labels = np.repeat(np.arange(20), 10)
    batch = sample_batch(labels, np.ones(200), draw)
    assert len(np.unique(labels[batch])) == 8
    assert len(batch) == len(np.unique(batch)) == 32
    weights = np.tile([0.0, 1.0], 100)
    two = sample_batch(np.repeat([0, 1], 100), weights, draw)
    assert len(two) == 32
    assert (weights[two] == 1).all()


def test_the_contrastive_loss_matches_a_hand_calculation() -> None:
    """Two orthogonal classes with two equal rows each: each row has one positive pair and two negatives at similarity
    0.

    log(1 + 2 e^-10) for the pairs, and log(1 + e^-10) for the class means.
    """
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    loss = contrastive_loss(embeddings, torch.tensor([0, 0, 1, 1]))
    assert float(loss) == pytest.approx(np.log(1 + 2 * np.exp(-10)) + np.log(1 + np.exp(-10)), rel=1e-2)


def test_fine_tuning_without_an_encoder_is_explained() -> None:
    """The error says which param to change."""
    with pytest.raises(InputError, match=r"no encoder to tune.*name an `encoder`"):
        FineTuned(FitContext(2)).fit(Inputs(np.zeros((2, 1), np.float32)), np.eye(2), np.ones(2))

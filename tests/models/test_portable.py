"""The model as one graph: it predicts the same as the learners do, in torch and as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.datasets import load_digits

from seedling.config.params import EncoderParams
from seedling.errors import InputError
from seedling.evaluate.minimal_perturbation import deepfool, fewest_words, minimal_perturbation
from seedling.export.model import write_onnx
from seedling.features.classical import FeatureMaker, ImageFeatures, TextFeatures
from seedling.features.encoded_features import EncodedFeatures
from seedling.features.encoder_handle import EncoderHandle
from seedling.media import images
from seedling.models import portable as portable_module
from seedling.models.gradients import FromPixels
from seedling.models.losses import Adjusted
from seedling.models.model import TrainedModel
from seedling.models.portable import Portable
from seedling.models.portable_features import Lab
from seedling.models.saving import make_learner
from seedling.models.training import FitContext
from seedling.progress import silent

RNG = np.random.default_rng(3)
HEADS = ["logistic_regression", "svm", "random_forest", "nearest_neighbors", "boosted_trees", "network"]
TEXTS = [
    f"{subject} {other} {number % 7}"
    for number in range(14)
    for subject, other in (("red apple", "falls"), ("green bus", "runs"), ("the bus", "a red bus"))
]


def colored(number: int) -> bytes:
    """A noisy image of 24 × 30 in which one of three channels is strong."""
    pixels = RNG.integers(0, 90, (24, 30, 3))
    pixels[..., number % 3] += 110
    pixels[4 : 8 + number % 9, 6:20] += 40
    return images.encode(np.clip(pixels, 0, 255).astype(np.uint8))


IMAGES = [colored(number) for number in range(60)]
LABELS = np.arange(60) % 3


def trained(
    maker: FeatureMaker, rows: list[Any], labels: np.ndarray, names: list[str], classes: int = 3, steps: int = 30
) -> TrainedModel:
    """A vote of these learners, each trained on two halves of these rows.

    `classes` may exceed the number of classes with labels. `steps` is the number of training steps of networks:
    graph and network agree after few steps as after many.
    """
    inputs, targets = maker.fit_transform(rows), np.eye(classes)[labels]
    members = []
    for name in names:
        halves = []
        for seed in (1, 2):
            learner = make_learner(name, FitContext(classes, seed=seed, steps=steps, maker=maker))
            learner.fit(inputs, targets, np.ones(len(rows)))
            halves.append(learner)
        members.append(halves)
    names_of_classes = [f"class {class_index}" for class_index in range(classes)]
    temperatures, votes = [1.3] * len(names), [1.0 + member_index for member_index in range(len(names))]
    return TrainedModel(names_of_classes, maker, members, temperatures, 0.8, votes, 0.0)


def graph_probabilities(model: TrainedModel, rows: list[Any]) -> np.ndarray:
    """The probabilities of the graph in torch."""
    graph = Portable(model).eval()
    with torch.no_grad():
        return np.asarray(graph(*graph.prepared(rows)))


def onnx_probabilities(model: TrainedModel, rows: list[Any], path: Path) -> np.ndarray:
    """The probabilities of onnxruntime on the written file, for the rows in batches of one and of the rest."""
    graph = Portable(model).eval()
    write_onnx(graph, graph.prepared(rows[:2]), path)
    session = onnxruntime.InferenceSession(path)
    parts = []
    for part in (rows[:1], rows[1:]):
        inputs = {name: values.numpy() for name, values in zip(graph.inputs, graph.prepared(part), strict=True)}
        parts.append(session.run(None, inputs)[0])
    return np.concatenate(parts)


def test_lab_matches_opencv_exactly() -> None:
    """Half a million random colors and all grays, against cv2.cvtColor."""
    colors = np.concatenate([RNG.integers(0, 256, (500_000, 3)), np.repeat(np.arange(256), 3).reshape(-1, 3)])
    image = colors.astype(np.uint8).reshape(4, -1, 3)
    expected = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    assert (Lab()(torch.from_numpy(image)).numpy() == expected).all()


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", HEADS)
def test_the_graph_of_each_learner_predicts_the_same_probabilities(name: str, classes: int) -> None:
    """Probabilities of images that no learner saw, to 1e-4; with one class more than there are labels of."""
    kept = np.flatnonzero(classes > LABELS)
    model = trained(
        ImageFeatures(), [IMAGES[row_index] for row_index in kept], LABELS[kept], [name], classes + 1, steps=6
    )
    new = [colored(number) for number in range(12)]
    assert np.abs(graph_probabilities(model, new) - model.predict(new)).max() < 1e-4


@pytest.mark.slow
def test_the_onnx_graph_of_a_vote_predicts_the_same_probabilities(tmp_path: Path) -> None:
    """Six learners of two halves, one with adjusted logits, through onnxruntime, for any number of rows."""
    model = trained(ImageFeatures(), IMAGES, LABELS, HEADS)
    model.members[0] = [Adjusted(half, np.log([0.5, 0.3, 0.2])) for half in model.members[0]]
    new = [colored(number) for number in range(7)]
    assert np.abs(onnx_probabilities(model, new, tmp_path / "model.onnx") - model.predict(new)).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["logistic_regression", "svm", "nearest_neighbors", "boosted_trees"])
def test_the_graph_of_sparse_text_features_predicts_the_same_probabilities(name: str) -> None:
    """Learners on TF-IDF features, which are stored as sparse matrices."""
    model = trained(TextFeatures(), TEXTS, np.arange(len(TEXTS)) % 3, [name])
    new = ["a green apple", "bus bus runs 3", "nothing known"]
    assert np.abs(graph_probabilities(model, new) - model.predict(new)).max() < 1e-4


@pytest.mark.soak
def test_the_onnx_graph_of_an_encoder_predicts_the_same_before_and_after_fine_tuning(
    of_texts: Path, tmp_path: Path
) -> None:
    """Texts of different lengths in one batch, padded and masked."""
    maker = EncodedFeatures(EncoderHandle(EncoderParams(model=str(of_texts)), "text", tmp_path))
    model = trained(maker, TEXTS, np.arange(len(TEXTS)) % 3, ["svm", "fine_tuned"])
    new = ["a green apple", "the red bus falls the red bus runs a a a", "bus"]
    assert np.abs(onnx_probabilities(model, new, tmp_path / "model.onnx") - model.predict(new)).max() < 1e-4


@pytest.mark.slow
def test_the_graph_of_an_image_encoder_predicts_the_same_probabilities(of_images: Path, tmp_path: Path) -> None:
    """Features of a convolutional encoder, concatenated with color features."""
    maker = EncodedFeatures(EncoderHandle(EncoderParams(model=str(of_images)), "image", tmp_path))
    model = trained(maker, IMAGES, LABELS, ["logistic_regression", "fine_tuned"], steps=6)
    new = [colored(number) for number in range(6)]
    assert np.abs(graph_probabilities(model, new) - model.predict(new)).max() < 1e-4


@pytest.mark.soak
def test_the_exported_file_is_deterministic_and_contains_no_local_path(tmp_path: Path) -> None:
    """Two exports are equal byte for byte, and neither contains the path of the project."""
    model = trained(ImageFeatures(), IMAGES, LABELS, ["logistic_regression"])
    graph = Portable(model).eval()
    for name in ("one", "two"):
        write_onnx(graph, graph.prepared(IMAGES[:2]), tmp_path / name)
    first, second = ((tmp_path / name).read_bytes() for name in ("one", "two"))
    assert first == second
    assert str(Path(portable_module.__file__).parent).encode() not in first
    onnx.checker.check_model(onnx.load(tmp_path / "one"), full_check=True)


def test_a_model_too_large_for_an_onnx_file_is_refused(tmp_path: Path) -> None:
    """The error says how to fix it."""
    model = trained(TextFeatures(), TEXTS, np.arange(len(TEXTS)) % 3, ["svm"])
    graph = Portable(model).eval()
    with pytest.raises(InputError, match=r"smaller `encoder`"):
        write_onnx(graph, graph.prepared(TEXTS[:2]), tmp_path / "model.onnx", max_bytes=10)


def digits() -> tuple[TrainedModel, np.ndarray]:
    """Logistic regression on 300 of scikit-learn's digits, and fifty other digits."""
    dataset = load_digits()
    image_arrays = np.repeat((dataset.images * 15.9).astype(np.uint8)[..., None], 3, axis=-1)
    maker = ImageFeatures()
    rows = [images.encode(image_array) for image_array in image_arrays[:300]]
    return trained(maker, rows, dataset.target[:300], ["logistic_regression"], 10), image_arrays[300:350]


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_every_learner_has_a_minimal_perturbation_or_reports_none(name: str) -> None:
    """Trees have no gradient: no perturbation is found and no error is raised. Learners with gradients are flipped."""
    model = trained(ImageFeatures(), IMAGES, LABELS, [name])
    rows = [(str(index), content) for index, content in enumerate(IMAGES[:30])]
    truth = {str(index): int(LABELS[index]) for index in range(30)}
    result = minimal_perturbation(
        model, rows, truth, modality="image", effort="quick", max_rows=8, max_megapixels=64.0, progress=silent
    )
    assert result is not None
    if name in {"random_forest", "boosted_trees"}:
        assert result.flipped == 0
    if name in {"logistic_regression", "network"}:
        assert result.flipped > 0


@pytest.mark.slow
def test_exporting_the_graph_does_not_change_the_models_predictions(of_images: Path, tmp_path: Path) -> None:
    """Also an encoder in bfloat16, whose copy in the graph is in float32."""
    maker = EncodedFeatures(EncoderHandle(EncoderParams(model=str(of_images), precision="bfloat16"), "image", tmp_path))
    model = trained(maker, IMAGES, LABELS, ["logistic_regression"])
    before = model.predict(IMAGES[:5])
    Portable(model)
    assert (model.predict(IMAGES[:5]) == before).all()


@pytest.mark.slow
def test_deepfool_finds_smaller_perturbations_than_random_noise() -> None:
    """Every prediction flips, and noise of the same size flips few of them."""
    model, image_arrays = digits()
    stand_in = FromPixels(Portable(model, smooth=True))
    sized = np.stack([images.resized(image_array, *stand_in.size) for image_array in image_arrays])
    perturbation_sizes = deepfool(model, stand_in, sized, silent)
    assert np.isfinite(perturbation_sizes).mean() >= 0.95
    before = model.predict([images.encode(image_array) for image_array in sized]).argmax(axis=1)
    noise = RNG.normal(size=sized.shape) * np.minimum(perturbation_sizes, 255)[:, None, None, None]
    noisy = np.clip(np.rint(sized + noise), 0, 255).astype(np.uint8)
    assert (model.predict([images.encode(image_array) for image_array in noisy]).argmax(axis=1) != before).mean() < 0.5


def test_removing_the_deciding_word_changes_the_prediction() -> None:
    """In texts of five words one word decides the class; without it, a fifth of the text, the other class is predicted."""
    filler = ["the a of on", "on of a the", "of the on a", "a on the of"]
    rows = [f"{words} good" for words in filler] * 5 + [f"{words} bad" for words in filler] * 4
    model = trained(TextFeatures(), rows, np.array([0] * 20 + [1] * 16), ["logistic_regression"], 2)
    assert fewest_words(model, ["a the of on bad"], silent).tolist() == [0.2]
    assert np.isinf(fewest_words(model, ["good", "a the of on good"], silent)).all()


def test_too_few_correct_rows_have_no_minimal_perturbation() -> None:
    """Three rows, and rows that are all wrong."""
    model = trained(TextFeatures(), TEXTS, np.arange(len(TEXTS)) % 3, ["logistic_regression"])
    rows = [(str(index), text) for index, text in enumerate(TEXTS[:12])]
    how = {"modality": "text", "effort": "quick", "max_rows": 8, "max_megapixels": 64.0, "progress": silent}
    right = {str(index): index % 3 for index in range(12)}
    assert minimal_perturbation(model, rows[:3], right, **how) is None  # type: ignore[arg-type]
    all_wrong = {row_id: (label + 1) % 3 for row_id, label in right.items()}
    assert minimal_perturbation(model, rows, all_wrong, **how) is None  # type: ignore[arg-type]
    assert minimal_perturbation(model, rows, right, **{**how, "max_rows": 3}) is None  # type: ignore[arg-type]
    assert minimal_perturbation(model, rows, right, **how).rows == 8  # type: ignore[arg-type, union-attr]

"""Behavior of small trained models that no accuracy shows: invariance, direction, minimum functionality.

The three kinds of tests are those of CheckList (Ribeiro et al. 2020).
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from shapes import SHAPES, draw

from seedling.config.params import WorkspaceConfig
from seedling.dataset.generation import Modality
from seedling.models.model import TrainedModel
from seedling.models.predictor import Answer, Predictor, Question
from seedling.models.saving import make_features, make_learner
from seedling.models.training import FitContext

LEARNERS = ("logistic_regression", "svm")  # the members of each model, with equal votes
TYPICAL_WORDS = {
    "food": ("soup", "bread", "cheese", "apple"),
    "travel": ("train", "ticket", "airport", "luggage"),
    "weather": ("storm", "cloud", "rain", "snow"),
}
NEUTRAL_WORDS = ("we", "had", "the", "again", "today", "about", "some", "new", "small", "with")
TEXTS_PER_CLASS = 20
IMAGES_PER_CLASS = 30
LOSSLESS_FORMATS = ("BMP", "TIFF", "WEBP")


def train_model(modality: Modality, payloads: list[bytes] | list[str], labels: list[str]) -> Predictor:
    """A model of two learners that is trained on these rows."""
    classes = sorted(set(labels))
    features = make_features(None, None, WorkspaceConfig(modality=modality))
    inputs, targets = features.fit_transform(payloads), np.eye(len(classes))[[classes.index(name) for name in labels]]
    members = []
    for name in LEARNERS:
        learner = make_learner(name, FitContext(len(classes), seed=1, maker=features))
        learner.fit(inputs, targets, np.ones(len(labels)))
        members.append([learner])
    model = TrainedModel(classes, features, members, [1.0] * len(members), 1.0, [1.0] * len(members), 0.0)
    return Predictor(model, modality, 0, 64.0)


@pytest.fixture(scope="session")
def text_model() -> Predictor:
    """A model of sentences that hold two typical words of their class among neutral words."""
    rng = np.random.default_rng(0)
    texts, labels = [], []
    for label, words in TYPICAL_WORDS.items():
        for _ in range(TEXTS_PER_CLASS):
            sentence = [*rng.choice(words, 2, replace=False), *rng.choice(NEUTRAL_WORDS, 4, replace=False)]
            texts.append(" ".join(rng.permutation(sentence)))
            labels.append(label)
    return train_model("text", texts, labels)


@pytest.fixture(scope="session")
def image_model() -> Predictor:
    """A model of noisy discs, bars and crosses at random positions."""
    rng = np.random.default_rng(0)
    labels = [shape for shape in SHAPES for _ in range(IMAGES_PER_CLASS)]
    return train_model("image", [encoded(draw(shape, rng)) for shape in labels], labels)


def encoded(pixels: np.ndarray, image_format: str = "PNG") -> bytes:
    """The image as a file of the format; formats with lossy variants are written without loss."""
    file, options = io.BytesIO(), {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    Image.fromarray(pixels).convert("RGB").save(file, image_format, **options)
    return file.getvalue()


def predict(predictor: Predictor, payload: bytes | str) -> Answer:
    """The answer for a row alone, which has no error."""
    (answer,) = predictor.answers([Question("row", payload)])
    assert answer.error is None, answer.error
    return answer


def probability(predictor: Predictor, payload: bytes | str, label: str) -> float:
    """The predicted probability of the class."""
    probabilities = predict(predictor, payload).probabilities
    assert probabilities is not None
    return float(probabilities[predictor.model.classes.index(label)])


@pytest.mark.parametrize("text", ["we had soup with cheese", "the train again", "about some new storm", "hello"])
def test_case_and_spaces_change_no_prediction_of_a_text(text_model: Predictor, text: str) -> None:
    """Upper case, title case, spaces around the text, and double spaces: exactly the same probabilities."""
    expected = predict(text_model, text).probabilities
    for variant in (text.upper(), text.title(), f"  {text} \n", text.replace(" ", "  "), text.replace(" ", "\n")):
        assert predict(text_model, variant).probabilities == expected, variant


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("image_format", LOSSLESS_FORMATS)
def test_lossless_encodings_change_no_prediction_of_an_image(
    image_model: Predictor, shape: str, image_format: str
) -> None:
    """The same pixels as PNG and in another format: exactly the same probabilities."""
    pixels = draw(shape, np.random.default_rng(1))
    expected = predict(image_model, encoded(pixels)).probabilities
    assert predict(image_model, encoded(pixels, image_format)).probabilities == expected


@pytest.mark.parametrize(("label", "word"), [(label, word) for label, words in TYPICAL_WORDS.items() for word in words])
def test_a_typical_word_raises_the_probability_of_its_class(text_model: Predictor, label: str, word: str) -> None:
    """In a neutral sentence, and in one of each other class, by more than rounding."""
    neutral = "we had the new again"
    sentences = [neutral, *(f"{neutral} {words[0]}" for other, words in TYPICAL_WORDS.items() if other != label)]
    for sentence in sentences:
        before = probability(text_model, sentence, label)
        assert probability(text_model, f"{sentence} {word}", label) > before + 0.01, sentence


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_over_an_image_lowers_the_probability_of_its_class(image_model: Predictor, shape: str) -> None:
    """The mean over ten images falls as more of the pixels are replaced by random ones."""
    rng = np.random.default_rng(2)
    images = [draw(shape, rng) for _ in range(10)]
    noise = [rng.integers(0, 255, image.shape).astype(np.uint8) for image in images]
    is_replaced = [rng.random(image.shape) for image in images]  # nested: a larger share replaces the same pixels too
    means = [
        np.mean(
            [
                probability(image_model, encoded(np.where(order < share, other, image)), shape)
                for image, other, order in zip(images, noise, is_replaced, strict=True)
            ]
        )
        for share in (0.0, 0.3, 1.0)
    ]
    assert means[0] > means[1] > means[2]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("soup and bread", "food"),
        ("apple with cheese", "food"),
        ("a ticket for the train", "travel"),
        ("luggage at the airport", "travel"),
        ("a storm with rain and snow", "weather"),
        ("one cloud, then rain", "weather"),
    ],
)
def test_obvious_texts_get_their_class(text_model: Predictor, text: str, label: str) -> None:
    """Sentences of typical words in other sentence frames than those of the training rows."""
    answer = predict(text_model, text)
    assert answer.predicted == label
    assert answer.confidence is not None and answer.confidence > 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_obvious_images_get_their_class(image_model: Predictor, shape: str) -> None:
    """Shapes in the center, white on black and without noise."""
    rows, columns = np.mgrid[:24, :24] - 12
    is_ink = {
        "disc": rows**2 + columns**2 <= 25,
        "bar": (abs(columns) <= 1) & (abs(rows) <= 8),
        "cross": ((abs(rows) <= 1) | (abs(columns) <= 1)) & (abs(rows) + abs(columns) <= 7),
    }[shape]
    assert predict(image_model, encoded(np.where(is_ink, 230, 30).astype(np.uint8))).predicted == shape

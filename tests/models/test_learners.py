"""Learners: soft labels and weights, features compared with hand calculations, and files without code that load equal."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize
from sklearn.semi_supervised import LabelSpreading
from sklearn.svm import SVC

from seedling.config.params import EncoderParams
from seedling.features.classical import ImageFeatures, Inputs, TextFeatures, dense, hog
from seedling.features.encoded_features import EncodedFeatures
from seedling.features.encoder import COLOR_COLUMNS
from seedling.features.encoder_handle import EncoderHandle
from seedling.media.images import encode
from seedling.models.heads import Head, hard_rows, make_estimator
from seedling.models.instance_based import SupportVectorMachine
from seedling.models.label_propagation import neighbor_graph, propagate_labels, scale_to_class_shares
from seedling.models.model import soft_vote
from seedling.models.saving import load_features, load_learner, make_learner, save_features, save_learner
from seedling.models.training import FitContext
from seedling.stats.statistics import softmax

RNG = np.random.default_rng(2)
X = np.concatenate([RNG.normal(-2, 1, (40, 6)), RNG.normal(2, 1, (40, 6))]).astype(np.float32)
IMAGES = np.concatenate([RNG.integers(0, 90, (40, 16, 16, 3)), RNG.integers(160, 255, (40, 16, 16, 3))]).astype(
    np.uint8
)
INPUTS = Inputs(X, IMAGES)
TARGETS = np.repeat(np.eye(2), 40, axis=0)
NAMES = ["logistic_regression", "svm", "random_forest", "nearest_neighbors", "boosted_trees", "network"]
FIT_CONTEXT = FitContext(2, seed=5, steps=60)


def fitted(name: str, targets: np.ndarray = TARGETS, weights: np.ndarray | None = None) -> np.ndarray:
    learner = make_learner(name, FIT_CONTEXT)
    learner.fit(INPUTS, targets, np.ones(80) if weights is None else weights)
    return learner.logits(INPUTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_learner_separates_two_distant_clusters(name: str) -> None:
    """Two clusters four standard deviations apart."""
    assert (fitted(name).argmax(axis=1) == TARGETS.argmax(axis=1)).mean() >= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_soft_labels_are_used(name: str) -> None:
    """If all labels are 90 % the other class, the other class is predicted."""
    turned = 0.1 * TARGETS + 0.9 * TARGETS[:, ::-1]
    assert (fitted(name, turned).argmax(axis=1) == TARGETS.argmin(axis=1)).mean() >= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_weights_are_used(name: str) -> None:
    """Of two rows with equal features and different labels, the label of the heavier row is predicted."""
    doubled = Inputs(np.concatenate([X, X]), np.concatenate([IMAGES, IMAGES]))
    targets = np.concatenate([TARGETS, TARGETS[:, ::-1]])
    weights = np.concatenate([np.full(80, 0.05), np.ones(80)])
    learner = make_learner(name, FIT_CONTEXT)
    learner.fit(doubled, targets, weights)
    assert (learner.logits(INPUTS).argmax(axis=1) == TARGETS.argmin(axis=1)).mean() >= 0.95


def test_a_soft_label_equals_several_weighted_hard_ones() -> None:
    """A row of weight 2 with probabilities 0.75 and 0.25 counts 1.5 for one class and 0.5 for the other."""
    rows, classes, weights = hard_rows(np.array([[0.75, 0.25], [0, 1.0]]), np.array([2.0, 1.0]))
    assert (rows.tolist(), classes.tolist(), weights.tolist()) == ([0, 0, 1], [0, 1, 1], [1.5, 0.5, 1.0])


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("as_sparse", [False, True])
def test_the_scores_of_the_support_vector_machine_are_those_of_scikit_learn(classes: int, as_sparse: bool) -> None:
    """One matrix product per class gives what libsvm computes pair by pair."""
    rows = RNG.normal(size=(150, 9)).astype(np.float32)
    features = sparse.csr_matrix(rows) if as_sparse else rows
    machine = SVC(C=10, kernel="linear" if as_sparse else "rbf", gamma=0.1)
    machine.fit(features, RNG.integers(0, classes, 150), sample_weight=RNG.random(150) + 0.1)
    expected = machine.decision_function(features)
    learner = SupportVectorMachine(classes)
    learner.take(machine, features, 0.0 if as_sparse else 0.1)
    ours = learner.logits(Inputs(features))
    assert (ours[:, 1] - ours[:, 0] if classes == 2 else ours) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("at_most", [0, 6000])
def test_a_support_vector_machine_equals_scikit_learns_with_or_without_a_precomputed_kernel(
    at_most: int,
) -> None:
    """Three classes, soft labels as weighted hard ones: the decisions are those of SVC with gamma `scale` on the features."""
    rows, labels = RNG.normal(size=(90, 6)).astype(np.float32), RNG.dirichlet(np.ones(3), 90)
    learner = SupportVectorMachine(3, max_precomputed_kernel_rows=at_most)
    learner.fit(Inputs(rows), labels, np.ones(90))
    peer = SVC(C=10, gamma="scale").fit(
        np.repeat(rows, 3, axis=0), np.tile(np.arange(3), 90), sample_weight=labels.ravel()
    )
    assert learner.logits(Inputs(rows)) == pytest.approx(peer.decision_function(rows), abs=1e-3)


def test_encoder_regression_equals_scikit_learns_on_the_encoders_columns() -> None:
    """Rows of norm 1 with a surface block of weight 0.25: the scores are equal, and the surface columns have no effect."""
    rng = np.random.default_rng(0)
    surface = np.float32(0.25) * normalize(rng.normal(size=(60, COLOR_COLUMNS)))
    encoder = normalize(rng.normal(size=(60, 12)) + 2 * np.eye(12)[np.arange(60) % 3])
    features = normalize(np.concatenate([encoder, surface], axis=1)).astype(np.float32)
    handle = EncoderHandle(EncoderParams(model="none"), "image", Path())
    maker = EncodedFeatures(handle, center=np.zeros(12 + COLOR_COLUMNS, np.float32), surface_weight=0.25)
    targets = np.eye(3)[np.arange(60) % 3]
    learner = make_learner("encoder_regression", FitContext(3, maker=maker))
    learner.fit(Inputs(features), targets, np.ones(60))
    peer = LogisticRegression(C=10, tol=1e-3, max_iter=200).fit(encoder, np.arange(60) % 3)
    scores = learner.logits(Inputs(features))
    assert scores == pytest.approx(peer.decision_function(encoder), abs=0.05)
    other = features.copy()
    other[:, 12:] = 0
    assert np.array_equal(learner.logits(Inputs(other)), scores)


def test_nearest_neighbors_agree_with_scikit_learn() -> None:
    """For two clusters, the class of every row is that of KNeighborsClassifier on rows of norm 1."""
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    peer = KNeighborsClassifier(15, weights="distance").fit(unit, TARGETS.argmax(axis=1)).predict(unit)
    assert (fitted("nearest_neighbors").argmax(axis=1) == peer).all()


def test_dropout_changes_predictions_based_on_few_features_and_not_on_many() -> None:
    """The class of one row depends on one feature, that of another on fifty.

    Dropping a tenth can change the first alone.
    """
    rows = np.zeros((40, 51), np.float32)
    rows[:20, 0], rows[20:, 0] = 1.0, -1.0
    rows[:20, 1:], rows[20:, 1:] = 0.2, -0.2
    learner = make_learner("logistic_regression", FIT_CONTEXT)
    assert isinstance(learner, Head)
    learner.fit(Inputs(rows), np.repeat(np.eye(2), 20, axis=0), np.ones(40))
    single_feature, fifty_features = np.zeros((1, 51), np.float32), np.zeros((1, 51), np.float32)
    single_feature[0, 0], fifty_features[0, 1:] = 1.0, 0.2
    deviations = [float(learner.dropout_std(Inputs(row), 1)[0]) for row in (single_feature, fifty_features)]
    masks = np.random.default_rng(1).random((10, 51)) > 0.1
    assert masks[:, 0].all() == (deviations[0] < 1e-3), "the deviation is there where some draw leaves the feature out"
    assert deviations[1] < 0.05


def test_logistic_regression_on_soft_labels_equals_scikit_learns_on_repeated_rows() -> None:
    """Weights 3 and 1 are four rows, three of them with one label."""
    mixed = 0.75 * TARGETS + 0.25 * TARGETS[:, ::-1]
    repeated = np.concatenate([X, X, X, X])
    labels = np.concatenate([TARGETS.argmax(1)] * 3 + [TARGETS.argmin(1)])
    peer = LogisticRegression(C=2.5, max_iter=200, tol=1e-3).fit(
        repeated, labels
    )  # a quarter of C for four times the rows
    ours = fitted("logistic_regression", mixed)
    assert softmax(ours)[:, 1] == pytest.approx(peer.predict_proba(X)[:, 1], abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_saved_learner_loads_equal_and_its_bytes_are_deterministic(name: str, tmp_path: Path) -> None:
    """Two fits give the same bytes, and the loaded learner gives the same logits."""
    files = []
    for attempt in ("one", "two"):
        learner = make_learner(name, FIT_CONTEXT)
        learner.fit(INPUTS, TARGETS, np.ones(80))
        save_learner(learner, tmp_path / attempt / name)
        files.append(next((tmp_path / attempt).iterdir()).read_bytes())
    assert files[0] == files[1]
    loaded = load_learner(name, tmp_path / "one" / name, FIT_CONTEXT)
    assert (loaded.logits(INPUTS) == learner.logits(INPUTS)).all()


@pytest.mark.slow
@pytest.mark.parametrize("as_sparse", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("name", ["logistic_regression", "random_forest", "boosted_trees"])
def test_learners_predict_bitwise_the_same_as_scikit_learns_estimators(
    name: str, classes: int, as_sparse: bool
) -> None:
    """The estimator is fitted on the same rows; its own predictions are the expected ones."""
    rng = np.random.default_rng(classes)
    rows = rng.normal(size=(120, 9)).astype(np.float32) * (rng.random((120, 9)) < 0.5)
    features = sparse.csr_matrix(rows) if as_sparse else rows
    targets = rng.dirichlet(np.full(classes, 0.3), 120)
    learner = Head(name, 3, classes)
    learner.fit(Inputs(features), targets, np.ones(120))
    taught, labels, weights = hard_rows(targets, np.ones(120))
    estimator = make_estimator(name, 3, len(taught))
    dense = rows if name == "boosted_trees" else features
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(dense[taught], labels, sample_weight=weights)
    if name == "logistic_regression":
        expected = estimator.decision_function(dense).astype(np.float64)
        ours = learner.logits(Inputs(features))
        assert ((ours[:, 1] if classes == 2 else ours) == (expected / 2 if classes == 2 else expected)).all()
    else:
        expected = np.log(np.maximum(estimator.predict_proba(dense), 1e-3))
        assert (learner.logits(Inputs(features)) == expected).all()


def test_hog_of_a_ramp_matches_a_hand_calculation() -> None:
    """An image that brightens to the right has gradients along x alone: all votes are in orientation bin 0."""
    ramp = np.asarray(np.tile(np.arange(16, dtype=np.float32) / 16, (16, 1))[None], dtype=np.float32)
    histogram = hog(ramp, cell=8, bins=4).reshape(4, 4)
    assert (histogram[:, 0] > 0.45).all()
    assert np.abs(histogram[:, 1:]).max() == 0


def test_image_features_weigh_blocks_equally_and_load_equal(tmp_path: Path) -> None:
    """The mean squared norm of a block is 1; loaded features are bitwise the same."""
    encoded = [encode(image) for image in IMAGES]
    maker = ImageFeatures()
    inputs = maker.fit_transform(encoded)
    blocks = np.split(inputs.features, [192, 192 + 324], axis=1)
    assert [(block**2).sum(axis=1).mean() for block in blocks if block.shape[1]] == pytest.approx([1, 1, 1], rel=0.02)
    save_features(maker, tmp_path)
    assert (load_features(tmp_path, "image", tmp_path).transform(encoded).features == inputs.features).all()


def test_text_features_load_equal(tmp_path: Path) -> None:
    """The vocabulary and frequencies are stored as JSON."""
    texts = ["book a table", "play a song", "is it raining"]
    maker = TextFeatures()
    inputs = maker.fit_transform(texts)
    save_features(maker, tmp_path)
    again = load_features(tmp_path, "text", tmp_path).transform(texts)
    assert abs(again.features - inputs.features).max() == 0


def test_dense_features_keep_the_angles_of_sparse_ones() -> None:
    """Latent semantic analysis with 20 dimensions keeps the cosines of rows that span only 10."""
    rows = RNG.normal(size=(30, 10)) @ RNG.normal(size=(10, 200))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    dense_rows = dense(sparse.csr_matrix(rows), 20)
    assert dense_rows @ dense_rows.T == pytest.approx(unit @ unit.T, abs=1e-4)


def test_linearly_dependent_sparse_features_have_deterministic_dense_ones() -> None:
    """Three copies of 20 rows span 20 of 40 dimensions: the memory layout changes no bit, and copies stay equal.

    The cosines are those of the rows, because no dimension with variance is lost.
    """
    different = sparse.random(20, 90, 0.2, random_state=0, format="csr")
    rows = sparse.csr_matrix(sparse.vstack([different] * 3))
    kept_arrays, results = [], []
    for number in range(8):
        kept_arrays.append(np.empty(1_000 + 8 * number))
        results.append(dense(rows.copy(), 40))
    assert len({reduced.tobytes() for reduced in results}) == 1
    assert results[0][:20] == pytest.approx(results[0][40:], abs=1e-6)
    unit = rows.toarray() / np.linalg.norm(rows.toarray(), axis=1, keepdims=True)
    assert results[0] @ results[0].T == pytest.approx(unit @ unit.T, abs=1e-5)


def test_label_propagation_agrees_with_scikit_learn() -> None:
    """Seeded with labels alone, the predicted classes are those of LabelSpreading on two separate clusters."""
    seeds = np.zeros((80, 2))
    seeds[0, 0] = seeds[79, 1] = 1
    propagated = propagate_labels(neighbor_graph(X, 7), seeds.astype(np.float32), strength=0.9)
    ours = scale_to_class_shares(np.array([0.5, 0.5]), propagated.astype(np.float64)).argmax(axis=1)
    seed_labels = np.full(80, -1)
    seed_labels[0], seed_labels[79] = 0, 1
    peer = LabelSpreading(kernel="knn", n_neighbors=7, alpha=0.9).fit(X, seed_labels).transduction_
    assert (ours == peer).mean() >= 0.97


def test_a_soft_vote_matches_a_hand_calculation() -> None:
    """The mean of (0.8, 0.2) and (0.6, 0.4) is (0.7, 0.3); temperature 1 does not change it."""
    logits = [np.log([[0.8, 0.2]]), np.log([[0.6, 0.4]])]
    assert soft_vote(logits, [1.0, 1.0], 1.0)[0] == pytest.approx([0.7, 0.3])

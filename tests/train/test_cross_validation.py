"""Fold models: what they learn from, label weights, and resuming a killed run."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benches import labeled, training_data

from seedling.dataset.generation import GenerationWriter, Row, identify
from seedling.dataset.training_rows import NO_FOLD, TrainingRows, drawn_pool
from seedling.errors import Diverged
from seedling.features.classical import Inputs
from seedling.label_quality.label_weights import LABEL_WEIGHTED_LOSSES
from seedling.models.saving import Learner, make_learner
from seedling.models.training import FitContext
from seedling.parallel.executor import inside_piece, using_executor
from seedling.progress import silent
from seedling.train.choice import EvaluationRows
from seedling.train.cross_validation import cross_validate
from seedling.train.tally import Candidate
from seedling.train.training_data import TrainingData
from seedling.train.trial import Trial, choose_and_fit


def test_a_wrong_label_gets_a_low_weight_from_models_that_did_not_see_it() -> None:
    """Three of sixty labels are wrong, far from their class: they weigh at most 0.2, the correct ones more than 0.5.

    With "label_weighted_twice", the limits are the squares, 0.04 and 0.25.
    """
    wrong = (4, 17, 33)
    rows, inputs, _ = labeled(60, wrong=wrong)
    for loss, power in (("label_weighted", 1), ("label_weighted_twice", 2)):
        weights = training_data(rows, inputs).label_weights(5, loss)
        assert weights[list(wrong)].max() < 0.2**power
        assert np.delete(weights, wrong).min() > 0.5**power
    data = training_data(rows, inputs)
    once, twice = data.label_weights(5, "label_weighted") ** 2, data.label_weights(5, "label_weighted_twice")
    correct = np.delete(np.arange(60), wrong)
    assert twice[correct].mean() > once[correct].mean(), "models trained with label weights weigh correct labels more"


def test_a_fold_models_label_weights_do_not_depend_on_the_labels_that_it_never_sees() -> None:
    """With every label of fold 0 flipped, fold model 0 gives the other folds' rows exactly the same weights."""
    rows, inputs, _ = labeled(60)
    flipped = rows.targets.copy()
    flipped[rows.fold == 0] = flipped[rows.fold == 0][:, ::-1]
    for loss in LABEL_WEIGHTED_LOSSES:
        first, second = (
            training_data(table, inputs).label_weights(0, loss)
            for table in (rows, dataclasses.replace(rows, targets=flipped))
        )
        assert (first == second).all()
        assert (first[rows.fold == 0] == 1).all()


def test_a_rows_label_weight_applies_to_the_rows_made_from_it() -> None:
    """An augmented row has its parent's label weight, a mixup row the lower of two; other rows keep their weight."""
    rows, _, _ = labeled(4)
    table = TrainingRows(
        ids=np.arange(7).astype(str),
        ingredient=np.array(["collected"] * 4 + ["augment", "synthesize", "synthesize"]),
        fold=np.array([0, 1, 2, 3, 0, 1, NO_FOLD]),
        targets=np.eye(2)[[0, 1, 0, 1, 0, 1, 0]],
        weights=np.full(7, 0.5),
        parents=np.array([[0, -1], [1, -1], [2, -1], [3, -1], [0, -1], [1, 2], [-1, -1]]),
        group=np.arange(7).astype(str),
        half=np.zeros(7, dtype=np.int64),
        pseudo_label_by_fold=np.full((7, 5), -1),
        pseudo_weight_by_fold=np.zeros((7, 5)),
    )
    all_data = ("collected", "augment", "synthesize")
    _, _, weights = table.for_fold_model(None, 4, 0, all_data, np.array([0.2, 0.6, 0.4, 1.0]))
    assert weights == pytest.approx([0.1, 0.3, 0.2, 0.5, 0.1, 0.2, 0.5])
    assert rows.folds == [0, 1]


class Exploding:
    """A learner that cannot be trained."""

    name, classes = "svm", 2

    def fit(self, inputs: Inputs, targets: np.ndarray, weights: np.ndarray) -> None:
        """Diverges."""
        raise Diverged("no number at step 1")

    def logits(self, inputs: Inputs) -> np.ndarray:
        """Is never called."""
        raise AssertionError


def test_a_learner_whose_training_diverges_is_left_out() -> None:
    """The other learner's predictions are returned, with the reason why this one is missing."""

    def make(name: str, context: FitContext) -> Learner:
        return Exploding() if name == "svm" else make_learner(name, context)

    rows, inputs, truth = labeled(40)
    data = dataclasses.replace(training_data(rows, inputs), make_learner=make)
    valid, broken = Candidate("logistic_regression", ("collected",)), Candidate("svm", ("collected",))
    trained, failed = cross_validate(data, [valid, broken])
    assert list(trained) == [valid]
    assert (trained[valid].labeled.argmax(axis=1) == truth).mean() == 1.0
    assert failed == {broken: "no number at step 1"}
    assert cross_validate(data, [broken]) == ({}, {broken: "no number at step 1"})


def test_what_a_killed_run_had_finished_is_not_computed_again(tmp_path: Path) -> None:
    """Every fold that took long is saved; the next run loads it, and computes a truncated file again."""
    rows, inputs, _ = labeled(40)
    data = dataclasses.replace(training_data(rows, inputs, tmp_path), min_seconds_to_save=-1.0)
    candidate = Candidate("logistic_regression", ("collected",))
    first, _ = cross_validate(data, [candidate])
    saved = sorted(tmp_path.glob("*.npz"))
    assert len(saved) == 5
    saved[0].write_bytes(saved[0].read_bytes()[:100])
    fitted: list[str] = []

    def make(name: str, context: FitContext) -> Learner:
        fitted.append(name)
        return make_learner(name, context)

    second, _ = cross_validate(dataclasses.replace(data, make_learner=make), [candidate])
    assert fitted == ["logistic_regression"]
    assert (second[candidate].labeled == first[candidate].labeled).all()


@pytest.mark.slow
def test_results_do_not_depend_on_the_executor() -> None:
    """One fold after the other and in threads: exactly the same numbers."""
    rows, inputs, _ = labeled(40)
    candidate = Candidate("random_forest", ("collected",))
    with using_executor(lambda function, indices, name: [function(index) for index in indices]):
        first, _ = cross_validate(training_data(rows, inputs), [candidate], seconds=1e9)
    second, _ = cross_validate(training_data(rows, inputs), [candidate], seconds=1e9)
    assert (first[candidate].labeled == second[candidate].labeled).all()


def test_a_fold_that_waits_for_its_last_candidate_leaves_no_thread_idle() -> None:
    """Two candidates, five folds, two threads, and an executor that asks for one fold after the other.

    The second candidate of fold 0 starts after the first candidate of all folds. When fold 0 is done, at most one of
    these five is still in training: at least five models are done, and not only the two of fold 0.
    """
    rows, inputs, _ = labeled(40)
    candidates = [Candidate("logistic_regression", ("collected",)), Candidate("svm", ("collected",))]
    data = training_data(rows, inputs)
    done_counts = [0]
    data.tally.expect_models(10, lambda what, done, total: done_counts.append(done))
    done_after_fold: list[int] = []

    def one_after_the_other(function: Callable[[int], Any], indices: Sequence[int], name: str) -> list[Any]:
        results = []
        for index in indices:
            results.append(function(index))
            done_after_fold.append(max(done_counts))
        return results

    with using_executor(one_after_the_other), inside_piece():  # a piece of a cluster's worker has one core: two threads
        trained, _ = cross_validate(data, candidates, seconds=1e9)
    assert list(trained) == candidates
    assert done_after_fold[0] >= 5
    assert done_after_fold[-1] == 10


def test_a_large_pool_is_drawn_by_names(tmp_path: Path) -> None:
    """The limit of rows, the same ones in any order; all rows if they are fewer than the limit."""
    for name, order in (("one", range(500)), ("other", reversed(range(500)))):
        with GenerationWriter(tmp_path / name, stage="validate", modality="text") as writer:
            for number in order:
                writer.keep(Row(identify(str(number).encode()), payload=str(number)))
            writer.keep(Row(identify(b"known"), split="train", label="a", payload="known"))
            writer.close(rows_in=501)
    drawn, other = (drawn_pool(tmp_path / name, 100, seed=0) for name in ("one", "other"))
    assert drawn == other
    assert drawn is not None
    assert len(set(drawn)) == 100
    assert identify(b"known") not in drawn
    assert drawn_pool(tmp_path / "one", 500, seed=0) is None


def one_row_per_class(make: Callable[[str, FitContext], Learner] = make_learner) -> tuple[TrainingData, np.ndarray]:
    """One label per class without a fold and ten validation rows far apart, with the classes of the validation rows."""
    rows, inputs, truth = labeled(12)
    first_rows = np.arange(2)
    one_per_class = TrainingRows(
        ids=rows.ids[first_rows],
        ingredient=rows.ingredient[first_rows],
        fold=np.full(2, NO_FOLD),
        targets=rows.targets[first_rows],
        weights=rows.weights[first_rows],
        parents=rows.parents[first_rows],
        group=rows.group[first_rows],
        half=rows.half[first_rows],
        pseudo_label_by_fold=np.full((2, 1), -1),
        pseudo_weight_by_fold=np.zeros((2, 1)),
    )
    validation = inputs.take(np.arange(2, 12))
    return TrainingData(one_per_class, inputs.take(first_rows), validation, FitContext(2), make_learner=make), truth[2:]


def test_if_all_labeled_rows_are_trained_on_validation_rows_are_predicted() -> None:
    """The final models, since there are no others, predict all validation rows correctly."""
    data, truth = one_row_per_class()
    candidate = Candidate("logistic_regression", ("collected",))
    trained, _ = cross_validate(data, [candidate])
    assert (trained[candidate].validation.argmax(axis=1) == truth).all()


def test_without_folds_a_final_model_is_fitted_once_and_a_failed_one_is_left_out(tmp_path: Path) -> None:
    """Of three learners one diverges: it is left out with its reason, and the models of the others are saved."""
    fitted: list[str] = []

    def make(name: str, context: FitContext) -> Learner:
        fitted.append(name)
        return Exploding() if name == "svm" else make_learner(name, context)

    data, truth = one_row_per_class(make)
    names = ("logistic_regression", "svm", "random_forest")
    trial = Trial(data)
    trial.run([Candidate(name, ("collected",)) for name in names], 0.0, silent)
    assert [(candidate.learner, reason) for candidate, reason in trial.left_out.items()] == [
        ("svm", "no number at step 1")
    ]
    evaluation_rows = EvaluationRows(
        truth, np.zeros(0, dtype=np.intp), np.arange(10).astype(str), np.ones(10), n_validation=10
    )
    choice = choose_and_fit(trial, evaluation_rows, 0, None, tmp_path)
    assert {member.learner for member in choice.members} <= {"logistic_regression", "random_forest"}
    assert sorted(path.stem for path in tmp_path.glob("half-0/*")) == sorted(member.name for member in choice.members)
    assert sorted(fitted) == sorted(names)


def test_a_failed_final_training_fits_no_other_model_again(tmp_path: Path) -> None:
    """The learner that diverges only without a fold is removed; the other members' models are fitted once each."""
    rows, inputs, truth = labeled(40)
    fitted: list[str] = []

    class ExplodingOnAllRows(Exploding):
        """Learns from the rows of four folds, and diverges on those of all five."""

        def fit(self, inputs: Inputs, targets: np.ndarray, weights: np.ndarray) -> None:
            if len(targets) == len(truth):
                super().fit(inputs, targets, weights)

        def logits(self, inputs: Inputs) -> np.ndarray:
            return np.asarray(inputs.features, dtype=np.float64)

    def make(name: str, context: FitContext) -> Learner:
        fitted.append(name)
        return ExplodingOnAllRows() if name == "svm" else make_learner(name, context)

    data = dataclasses.replace(training_data(rows, inputs), make_learner=make)
    trial = Trial(data)
    trial.run([Candidate(name, ("collected",)) for name in ("logistic_regression", "svm")], 0.0, silent)
    no_rows = np.zeros(0, dtype=np.int64)
    choice = choose_and_fit(trial, EvaluationRows(no_rows, no_rows, no_rows.astype(str), np.ones(0)), 0, None, tmp_path)
    assert [member.learner for member in choice.members] == ["logistic_regression"]
    assert Counter(fitted) == {"logistic_regression": 6, "svm": 6}


def test_the_only_visible_row_of_a_class_has_an_average_label_weight() -> None:
    """A class of two rows, one in the fold that the fold model never sees: no model knows the class.

    The other row's weight must not reveal which class the hidden fold contains.
    """
    rows, inputs, _ = labeled(42, classes=2)
    targets = np.zeros((42, 3))
    targets[:, :2] = rows.targets
    targets[[0, 11]] = [0, 0, 1]
    fold = rows.fold.copy()
    fold[[0, 11]] = [0, 1]
    rare = dataclasses.replace(rows, targets=targets, fold=fold)
    weights = training_data(rare, inputs).label_weights(0, "label_weighted")
    others = (fold != 0) & (np.arange(42) != 11)
    assert weights[11] == pytest.approx(weights[others].mean())

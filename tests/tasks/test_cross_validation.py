"""Lineages: what their models learn, whom they trust, and what is kept of a killed run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from benches import bench_of, labeled

from seedling.dataset.generation import GenerationWriter, Row, identify
from seedling.dataset.training_rows import NO_FOLD, TrainingRows, drawn_pool
from seedling.errors import Diverged
from seedling.features.classical import Inputs
from seedling.label_quality.label_weights import TRUSTED
from seedling.models.saving import Learner
from seedling.models.training import FitContext
from seedling.parallel.executor import spread_by
from seedling.train import cross_validation
from seedling.train.cross_validation import TrainingData, cross_validate, out_of_fold_anew
from seedling.train.tally import Candidate


def test_a_wrong_label_is_trusted_less_by_models_that_did_not_see_it() -> None:
    """Three of sixty labels are wrong, far from their class: trusted a fifth at most, the right ones more than half; and
    where trust is strict, a twenty-fifth at most and more than a quarter.
    """
    wrong = (4, 17, 33)
    rows, inputs, _ = labeled(60, wrong=wrong)
    for loss, power in (("label_weighted", 1), ("label_weighted_twice", 2)):
        trust = bench_of(rows, inputs).trust(5, loss)
        assert trust[list(wrong)].max() < 0.2**power
        assert np.delete(trust, wrong).min() > 0.5**power
    bench = bench_of(rows, inputs)
    once, twice = bench.trust(5, "label_weighted") ** 2, bench.trust(5, "label_weighted_twice")
    right = np.delete(np.arange(60), wrong)
    assert twice[right].mean() > once[right].mean(), "models that learnt with trust believe the right labels more"


def test_a_lineages_trust_does_not_hang_on_the_labels_that_it_never_sees() -> None:
    """With every label of fold 0 turned round, lineage 0 trusts the other folds' rows as before, to the bit."""
    rows, inputs, _ = labeled(60)
    turned = rows.targets.copy()
    turned[rows.fold == 0] = turned[rows.fold == 0][:, ::-1]
    for loss in TRUSTED:
        first, second = (
            bench_of(one, inputs).trust(0, loss) for one in (rows, dataclasses.replace(rows, targets=turned))
        )
        assert (first == second).all()
        assert (first[rows.fold == 0] == 1).all()


def test_a_rows_trust_weighs_on_what_was_made_from_it() -> None:
    """A child counts as its parent is trusted, a mixture as the less trusted of two; other rows keep their weight."""
    rows, _, _ = labeled(4)
    made = TrainingRows(
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
    everything = ("collected", "augment", "synthesize")
    _, _, weights = made.of_lineage(None, 4, 0, everything, np.array([0.2, 0.6, 0.4, 1.0]))
    assert weights == pytest.approx([0.1, 0.3, 0.2, 0.5, 0.1, 0.2, 0.5])
    assert rows.folds == [0, 1]


class Exploding:
    """A learner that cannot be trained."""

    name, classes = "svm", 2

    def fit(self, inputs: Inputs, targets: np.ndarray, weights: np.ndarray) -> None:
        """Diverges."""
        raise Diverged("no number at step 1")

    def logits(self, inputs: Inputs) -> np.ndarray:
        """Is never asked."""
        raise AssertionError


def test_a_learner_whose_loss_is_no_number_is_left_out_where_there_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' predictions are there; why it is missing is said."""
    real = cross_validation.make_learner

    def make(name: str, setting: FitContext) -> Learner:
        return Exploding() if name == "svm" else real(name, setting)

    monkeypatch.setattr(cross_validation, "make_learner", make)
    rows, inputs, truth = labeled(40)
    sound, broken = Candidate("logistic_regression", ("collected",)), Candidate("svm", ("collected",))
    trained, failed = cross_validate(bench_of(rows, inputs), [sound, broken])
    assert list(trained) == [sound]
    assert (trained[sound].labeled.argmax(axis=1) == truth).mean() == 1.0
    assert failed == {broken: "no number at step 1"}
    assert cross_validate(bench_of(rows, inputs), [broken]) == ({}, {broken: "no number at step 1"})


def test_what_a_killed_run_had_finished_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fold that took long is kept; the next run takes it over, and half a file is computed anew."""
    monkeypatch.setattr(cross_validation, "WORTH_KEEPING", -1.0)
    rows, inputs, _ = labeled(40)
    one = Candidate("logistic_regression", ("collected",))
    first, _ = cross_validate(bench_of(rows, inputs, tmp_path), [one])
    kept = sorted(tmp_path.glob("*.npz"))
    assert len(kept) == 5
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    fits: list[int] = []
    real = cross_validation.make_learner
    monkeypatch.setattr(
        cross_validation, "make_learner", lambda name, setting: (fits.append(1), real(name, setting))[1]
    )
    second, _ = cross_validate(bench_of(rows, inputs, tmp_path), [one])
    assert len(fits) == 1
    assert (second[one].labeled == first[one].labeled).all()


def test_results_do_not_hang_on_how_the_folds_are_spread() -> None:
    """One after the other, in threads: the same numbers to the bit."""
    rows, inputs, _ = labeled(40)
    one = Candidate("random_forest", ("collected",))
    with spread_by(lambda work, places, name: [work(place) for place in places]):
        first, _ = cross_validate(bench_of(rows, inputs), [one], seconds=1e9)
    second, _ = cross_validate(bench_of(rows, inputs), [one], seconds=1e9)
    assert (first[one].labeled == second[one].labeled).all()


def test_a_large_pool_is_drawn_by_names(tmp_path: Path) -> None:
    """So many rows, the same ones in whatever order they stand; all where they are few."""
    for name, order in (("one", range(500)), ("other", reversed(range(500)))):
        with GenerationWriter(tmp_path / name, stage="validate", modality="text") as writer:
            for number in order:
                writer.keep(Row(identify(str(number).encode()), payload=str(number)))
            writer.keep(Row(identify(b"known"), split="train", label="a", payload="known"))
            writer.close(rows_in=501)
    drawn, other = (drawn_pool(tmp_path / name, 100, seed=0) for name in ("one", "other"))
    assert drawn == other
    assert len(set(drawn or ())) == 100
    assert identify(b"known") not in drawn
    assert drawn_pool(tmp_path / "one", 500, seed=0) is None


def test_where_every_labeled_row_teaches_validation_rows_judge() -> None:
    """One label a class in no fold, ten validation rows far apart: the final models' predictions of them, all right."""
    rows, inputs, truth = labeled(12)
    alone = np.arange(2)
    one_a_class = TrainingRows(
        ids=rows.ids[alone],
        ingredient=rows.ingredient[alone],
        fold=np.full(2, NO_FOLD),
        targets=rows.targets[alone],
        weights=rows.weights[alone],
        parents=rows.parents[alone],
        group=rows.group[alone],
        half=rows.half[alone],
        pseudo_label_by_fold=np.full((2, 1), -1),
        pseudo_weight_by_fold=np.zeros((2, 1)),
    )
    bench = TrainingData(one_a_class, inputs.take(alone), inputs.take(np.arange(2, 12)), FitContext(2))
    one = Candidate("logistic_regression", ("collected",))
    trained, _ = cross_validate(bench, [one])
    assert (trained[one].validation.argmax(axis=1) == truth[2:]).all()


def test_another_seed_changes_what_depends_on_it_alone() -> None:
    """Without a pool logistic regression is the same under each seed, and a forest is not."""
    rows, inputs, _ = labeled(40, wrong=(0, 7, 12, 21, 30))
    bench = bench_of(rows, inputs)
    tried = [Candidate(name, ("collected",)) for name in ("logistic_regression", "random_forest")]
    first, _ = cross_validate(bench, tried)
    same = [np.array_equal(out_of_fold_anew(bench, one, [1])[0].labeled, first[one].labeled) for one in tried]
    assert same == [True, False]


def test_the_only_other_row_of_a_class_is_trusted_as_others_are() -> None:
    """A class of two rows, one in the fold that the lineage never sees: no model that is asked knows the class, and the
    other row's weight must not tell which class that fold holds a row of.
    """
    rows, inputs, _ = labeled(42, classes=2)
    targets = np.zeros((42, 3))
    targets[:, :2] = rows.targets
    targets[[0, 11]] = [0, 0, 1]
    fold = rows.fold.copy()
    fold[[0, 11]] = [0, 1]
    rare = dataclasses.replace(rows, targets=targets, fold=fold)
    trust = bench_of(rare, inputs).trust(0, "label_weighted")
    others = (fold != 0) & (np.arange(42) != 11)
    assert trust[11] == pytest.approx(trust[others].mean())

"""train: fold models never see the rows that they are evaluated on, and the round decision."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seedling.config.params import TrainParams, WorkspaceConfig
from seedling.dataset.training_rows import NO_FOLD, TrainingRows, pool_halves
from seedling.features.classical import ImageFeatures
from seedling.stats.statistics import fit_temperature
from seedling.train import unfinished_key
from seedling.train.choice import EvaluationRows, choose
from seedling.train.cross_validation import Predictions
from seedling.train.round_decision import RoundDecision, compare_rounds
from seedling.train.tally import Candidate

PARAMS = TrainParams(bootstrap_draws=1000)


def two_class(correct: np.ndarray, confidence: float = 0.9) -> np.ndarray:
    """Two-class probabilities of rows whose true class is 0: `confidence` if correct, 1 - confidence if not."""
    p_truth = np.where(correct, confidence, 1 - confidence)
    return np.stack([p_truth, 1 - p_truth], axis=1)


def round_decision(
    *rounds: np.ndarray | list[np.ndarray], changed: float = 0.5, last: bool = False, margin: float = 0.0
) -> RoundDecision:
    old, new = (
        [learner[None] for learner in ([learners] if isinstance(learners, np.ndarray) else learners)]
        for learners in rounds
    )
    n_rows = old[0].shape[1]
    return compare_rounds(
        1,
        0,
        old,
        new,
        np.zeros(n_rows, dtype=np.int64),
        np.arange(n_rows).astype(str),
        changed_share=changed,
        last=last,
        params=PARAMS.model_copy(update={"margin": margin}),
        seed=0,
    )


CORRECT = np.arange(100) < 80


def test_a_round_that_loses_rows_is_rejected_and_rolled_back() -> None:
    """72 correct instead of 80: worse with a probability close to one, so round 0 stays."""
    decision = round_decision(two_class(CORRECT), two_class(np.arange(100) < 72))
    assert (decision.decision, decision.accepted_round, decision.stop) == ("rejected", 0, True)
    assert decision.accuracy is not None
    assert decision.accuracy.value == pytest.approx(-0.08)
    assert "-8.0 points" in decision.reason


def test_a_round_that_gains_rows_is_accepted_and_the_loop_goes_on() -> None:
    """88 correct instead of 80."""
    decision = round_decision(two_class(CORRECT), two_class(np.arange(100) < 88))
    assert (decision.decision, decision.accepted_round, decision.stop) == ("accepted", 1, False)


def test_log_loss_alone_does_not_reject() -> None:
    """The same rows are correct: a temperature corrects the confidence."""
    assert round_decision(two_class(CORRECT, 0.9), two_class(CORRECT, 0.999)).decision == "accepted"


def test_a_loss_of_rows_that_log_loss_confirms_is_rejected_earlier() -> None:
    """Four rows lost and one gained: by the sign test 26 / 32 worse; rejected only if log loss is worse too."""
    new = CORRECT.copy()
    new[[3, 4, 5, 6]], new[90] = False, True
    decision = round_decision(two_class(CORRECT), two_class(new))
    assert decision.accuracy is not None
    assert 0.8 <= decision.accuracy.probability_worse < 0.95
    assert decision.decision == "rejected"
    assert "log-loss" in decision.reason
    assert round_decision(two_class(CORRECT, 0.999), two_class(new, 0.8)).decision == "accepted"


def test_a_loss_within_the_margin_is_accepted() -> None:
    """Ten rows of a hundred lost in every sample: rejected, unless params.yaml allows 20 points."""
    new = CORRECT & (np.arange(100) >= 10)
    assert round_decision(two_class(CORRECT), two_class(new)).decision == "rejected"
    assert round_decision(two_class(CORRECT), two_class(new), margin=0.2).decision == "accepted"


def test_the_mean_over_learners_decides_even_if_the_first_learner_gains() -> None:
    """One learner gains ten rows, two lose ten each: 3.3 points less in the mean."""
    gained, lost = CORRECT | (np.arange(100) >= 90), CORRECT & (np.arange(100) >= 10)
    decision = round_decision([two_class(CORRECT)] * 3, [two_class(gained), two_class(lost), two_class(lost)])
    assert decision.accuracy is not None
    assert round(decision.accuracy.value, 4) == round(-10 / 300, 4)


def test_the_loop_stops_when_the_pools_labels_no_longer_change_or_rounds_end() -> None:
    """Accepted, and stopped with the reason."""
    assert round_decision(two_class(CORRECT), two_class(CORRECT), changed=0.005).stop
    assert "converged" in round_decision(two_class(CORRECT), two_class(CORRECT), changed=0.005).reason
    assert "last round" in round_decision(two_class(CORRECT), two_class(CORRECT), last=True).reason


def table() -> TrainingRows:
    """Four labeled rows in folds 0 and 1, an augmented row of each, a template row, four pool rows."""
    ingredient = np.array(["collected"] * 4 + ["augment"] * 4 + ["synthesize"] + ["pool"] * 4)
    fold = np.array([0, 0, 1, 1, 0, 0, 1, 1, NO_FOLD, NO_FOLD, NO_FOLD, NO_FOLD, NO_FOLD])
    targets = np.zeros((13, 2))
    targets[:9, 0] = 1
    pseudo_label_by_fold = np.full((13, 3), -1)
    pseudo_label_by_fold[9:] = [[1, 0, 1], [1, -1, 1], [-1, 0, 0], [1, 1, 1]]
    return TrainingRows(
        ids=np.arange(13).astype(str),
        ingredient=ingredient,
        fold=fold,
        targets=targets,
        weights=np.ones(13),
        parents=np.array([[n, -1] for n in [0, 1, 2, 3, 0, 1, 2, 3]] + [[-1, -1]] * 5),
        group=np.arange(13).astype(str),
        half=np.array([0] * 9 + [0, 1, 0, 1]),
        pseudo_label_by_fold=pseudo_label_by_fold,
        pseudo_weight_by_fold=np.tile([0.5, 0.7, 0.9], (13, 1)),
    )


def test_a_fold_model_sees_neither_its_folds_rows_nor_rows_augmented_from_them() -> None:
    """Fold model 0 learns from fold 1, rows augmented from it, templates, and its own pseudo-labels of one half."""
    chosen, targets, weights = table().for_fold_model(0, 0, 0, ("collected", "augment", "synthesize"))
    assert chosen.tolist() == [2, 3, 6, 7, 8, 9]
    assert targets[-1].tolist() == [0, 1]
    assert weights[-1] == 0.5


def test_each_half_of_the_pool_has_its_own_model() -> None:
    """Half 1 learns from rows 10 and 12 alone; fold model 1 refused row 10."""
    assert table().for_fold_model(0, 0, 1, ("collected",))[0].tolist() == [2, 3, 10, 12]
    chosen, _, weights = table().for_fold_model(1, 1, 1, ("collected",))
    assert chosen.tolist() == [0, 1, 12]
    assert weights.tolist() == [1, 1, 0.7], "the weight is that of fold model 1"


def test_the_final_model_sees_every_fold() -> None:
    """No row is held out from the model that is saved."""
    assert table().for_fold_model(None, 2, 0, ("collected",))[0].tolist() == [0, 1, 2, 3, 9, 11]


def test_halves_are_about_equal_and_depend_on_the_group_alone() -> None:
    """Near-duplicates are in the same half; of 1000 groups, about 500 are in each."""
    groups = [f"g{n}" for n in range(1000)]
    halves = pool_halves(groups, 0)
    assert 440 < sum(halves) < 560
    assert halves[:5].tolist() == pool_halves(groups[:5], 0).tolist()
    assert halves.tolist() != pool_halves(groups, 1).tolist()


def predictions(logits: np.ndarray) -> Predictions:
    """Predictions of labeled rows alone."""
    return Predictions(logits, np.zeros((0, 2)), np.zeros((1, 0, 2)), np.zeros(len(logits)), np.zeros((1, 0)))


def test_the_choice_is_the_smallest_log_loss_of_learners_and_ensemble() -> None:
    """A learner that is always correct beats one that guesses, and the ensemble of both."""
    truth = np.arange(60) % 2
    correct, guess = 4 * np.eye(2)[truth], np.random.default_rng(0).normal(size=(60, 2))
    evaluation_rows = EvaluationRows(truth, np.arange(60), np.arange(60).astype(str), np.ones(60))
    trained = {
        Candidate("svm", ("collected",)): predictions(correct),
        Candidate("random_forest", ("collected",)): predictions(guess),
    }
    choice = choose(trained, evaluation_rows)
    assert [member.learner for member in choice.members] == ["svm"]
    assert choice.temperatures[0] == fit_temperature(correct, truth)


def test_decisions_are_plain_json() -> None:
    """As decision.json holds them."""
    content = json.loads(json.dumps(round_decision(two_class(CORRECT), two_class(CORRECT)).record.as_json()))
    assert set(content) >= {"round", "decision", "stop", "reason", "accepted_round", "accuracy", "log_loss", "rows"}
    assert set(content["accuracy"]) == {"value", "low", "high", "probability_worse"}


def test_a_digest_of_the_rows_changes_with_any_of_their_values() -> None:
    """Equal rows have equal digests; another id, fold, target, weight or pseudo-label makes another digest."""
    rows = table()
    changed = [replace(rows, **{name: array.copy()}) for name, array in vars(rows).items()]
    assert {copy.digest() for copy in changed} == {rows.digest()}
    for copy, name in zip(changed, vars(rows), strict=True):
        array = getattr(copy, name)
        array[-1] = "other" if array.dtype.kind == "U" else array[-1] + 1
    assert len({rows.digest(), *(copy.digest() for copy in changed)}) == 1 + len(changed)


def test_unfinished_work_is_resumed_only_with_the_same_rows_params_and_features(tmp_path: Path) -> None:
    """The key depends on the rows, the other rows, the params, the encoder and the teacher's fitted features."""
    (tmp_path / "features.json").write_text("{}")
    maker, config = ImageFeatures(), WorkspaceConfig(modality="image")
    weights = table().weights + 1

    def key(**changes: Any) -> str:
        values = {"params": PARAMS, "config": config, "rows": table(), "other_rows": [["v"], [], []], "maker": maker}
        return unfinished_key(**{**values, "teacher": None, **changes})

    keys = [
        key(),
        key(params=PARAMS.model_copy(update={"steps": 7})),
        key(config=config.model_copy(update={"seed": 1})),
        key(rows=replace(table(), weights=weights)),
        key(other_rows=[["w"], [], []]),
        key(teacher=tmp_path),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]
    (tmp_path / "features.json").write_text('{"side": 32}')
    assert key(teacher=tmp_path) not in keys

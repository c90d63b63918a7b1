"""train: fold models never see the rows that they are evaluated on, and the round decision."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seedling.config.params import TrainParams, WorkspaceConfig
from seedling.dataset.fold_probabilities import read_fold_probabilities, write_fold_probabilities
from seedling.dataset.training_rows import NO_FOLD, TrainingRows, pool_halves
from seedling.features.classical import ImageFeatures
from seedling.stats.statistics import fit_temperature
from seedling.train import unfinished_key
from seedling.train.choice import EvaluationRows, choose
from seedling.train.cross_validation import Predictions
from seedling.train.round_decision import RoundDecision, class_share_weights, compare_rounds
from seedling.train.tally import Candidate

PARAMS = TrainParams(bootstrap_draws=1000)


def two_class(correct: np.ndarray, confidence: float = 0.9) -> np.ndarray:
    """Two-class probabilities of rows whose true class is 0: `confidence` if correct, 1 - confidence if not."""
    p_truth = np.where(correct, confidence, 1 - confidence)
    return np.stack([p_truth, 1 - p_truth], axis=1)


def round_decision(
    old: np.ndarray, new: np.ndarray, *, changed: float = 0.5, last: bool = False, weights: np.ndarray | None = None
) -> RoundDecision:
    n_rows = len(old)
    return compare_rounds(
        1,
        0,
        old,
        new,
        np.zeros(n_rows, dtype=np.int64),
        np.arange(n_rows).astype(str),
        weights=np.ones(n_rows) if weights is None else weights,
        changed_share=changed,
        last=last,
        params=PARAMS,
        seed=0,
    )


CORRECT = np.arange(100) < 80


def test_a_round_with_a_higher_log_loss_is_rejected_and_rolled_back() -> None:
    """72 correct instead of 80: the loss of eight rows rises from -log .9 to -log .1, so round 0 stays."""
    decision = round_decision(two_class(CORRECT), two_class(np.arange(100) < 72))
    assert (decision.decision, decision.accepted_round, decision.stop) == ("rejected", 0, True)
    assert decision.accuracy is not None
    assert decision.log_loss is not None
    assert decision.accuracy.value == pytest.approx(-0.08)
    assert decision.log_loss.value == pytest.approx(0.08 * np.log(9))
    assert decision.reason.startswith("not clearly better: log loss +0.176, lower with probability 0.00")
    assert "accuracy -8.0 points" in decision.reason


def test_a_round_with_a_clearly_lower_log_loss_is_accepted_and_the_loop_goes_on() -> None:
    """88 correct instead of 80."""
    decision = round_decision(two_class(CORRECT), two_class(np.arange(100) < 88))
    assert (decision.decision, decision.accepted_round, decision.stop) == ("accepted", 1, False)
    assert decision.reason.startswith("log loss -0.176, lower with probability 1.00; accuracy +8.0 points")


@pytest.mark.parametrize(("gained", "decision"), [(3, "rejected"), (6, "accepted")])
def test_the_printed_probability_and_the_rule_agree(gained: int, decision: str) -> None:
    """One row lost and 3 or 6 gained: a bootstrap draws about Poisson(1) and Poisson(3 or 6): .77 and .95."""
    new = CORRECT.copy()
    new[80 : 80 + gained], new[0] = True, False
    result = round_decision(two_class(CORRECT), two_class(new))
    printed = re.search(r"lower with probability (\d\.\d\d)", result.reason)
    assert printed is not None
    assert (float(printed[1]) >= PARAMS.accept_if_p_better) == (decision == "accepted")
    assert result.decision == decision


def test_equal_models_are_not_clearly_better() -> None:
    """A round that changes nothing is rejected: its model is larger."""
    decision = round_decision(two_class(CORRECT), two_class(CORRECT))
    assert decision.decision == "rejected"
    assert "lower with probability 0.00" in decision.reason


def test_a_lower_log_loss_does_not_excuse_a_certain_loss_of_rows() -> None:
    """The model becomes surer where it is right and loses ten rows just below one half: rejected, with both numbers."""
    old, new = two_class(CORRECT, 0.7), two_class(CORRECT, 0.95)
    new[:10] = [0.49, 0.51]
    new[80:] = old[80:]
    decision = round_decision(old, new)
    assert decision.decision == "rejected"
    assert decision.reason.startswith("accuracy -10.0 points")
    assert "lower with probability 1.00; log loss -" in decision.reason


def test_rows_count_by_the_class_shares_of_the_pool() -> None:
    """Half of the rows get better and half as much worse; the weights decide which half counts."""
    half = np.arange(100) < 50
    old, new = two_class(np.ones(100, dtype=bool), 0.8), two_class(np.ones(100, dtype=bool), 0.8)
    new[half], new[~half] = [0.9, 0.1], [0.7, 0.3]
    better, worse = np.where(half, 1.8, 0.2), np.where(half, 0.2, 1.8)
    assert round_decision(old, new, weights=better).decision == "accepted"
    assert round_decision(old, new, weights=worse).decision == "rejected"


def test_class_share_weights_by_hand() -> None:
    """Labels 1:1, pool 9:1, so weights 1.8 and .2; a share that no row shows is limited to a factor of 5."""
    truth = np.array([0, 0, 1, 1])
    pool = np.tile([0.9, 0.1], (7, 1))
    assert class_share_weights(truth, pool) == pytest.approx([1.8, 1.8, 0.2, 0.2])
    rare = class_share_weights(np.array([0] * 99 + [1]), np.tile([0.5, 0.5], (7, 1)))
    assert rare[-1] / rare[0] == pytest.approx(5 / (0.5 / 0.99))
    assert class_share_weights(truth, np.zeros((0, 2))).tolist() == [1, 1, 1, 1]


def test_the_loop_stops_when_the_pools_labels_no_longer_change_or_rounds_end() -> None:
    """Accepted, and stopped with the reason."""
    assert round_decision(two_class(CORRECT), two_class(np.arange(100) < 88), changed=0.005).stop
    assert "converged" in round_decision(two_class(CORRECT), two_class(np.arange(100) < 88), changed=0.005).reason
    assert "last round" in round_decision(two_class(CORRECT), two_class(np.arange(100) < 88), last=True).reason


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
        pseudo_probabilities=np.tile(np.array([0.4, 0.6], dtype=np.float32), (4, 3, 1)),
    )


def test_a_fold_model_sees_neither_its_folds_rows_nor_rows_augmented_from_them() -> None:
    """Fold model 0 learns from fold 1, rows augmented from it, templates, and its own pseudo-labels of one half."""
    chosen, targets, weights = table().for_fold_model(0, 0, 0, ("collected", "augment", "synthesize"))
    assert chosen.tolist() == [2, 3, 6, 7, 8, 9]
    assert targets[-1].tolist() == [0, 1]
    assert weights[-1] == 0.5


def test_soft_targets_are_the_probabilities_of_the_fold_model() -> None:
    """Nearest neighbors learn .4 and .6 where others learn class 1; people's labels stay hard."""
    chosen, targets, weights = table().for_fold_model(0, 0, 0, ("collected",), soft=True)
    assert chosen.tolist() == [2, 3, 9]
    assert targets[-1] == pytest.approx([0.4, 0.6])
    assert targets[0].tolist() == [1, 0]
    assert weights.tolist() == [1, 1, 0.5]


def test_fold_probabilities_are_read_in_the_order_of_the_ids(tmp_path: Path) -> None:
    """Two fold models, three rows, two classes; read for other ids in another order."""
    probabilities = np.arange(12, dtype=np.float64).reshape(2, 3, 2)
    write_fold_probabilities(tmp_path, ["a", "b", "c"], probabilities)
    assert read_fold_probabilities(tmp_path, ["c", "a"]).tolist() == [[[4, 5], [10, 11]], [[0, 1], [6, 7]]]


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

"""train: lineages that never see what they are judged by, and the decision."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from seedling.config.params import TrainParams
from seedling.dataset.training_rows import NO_FOLD, TrainingRows, pool_halves
from seedling.stats.statistics import fit_temperature
from seedling.train.choice import Judged, choose
from seedling.train.cross_validation import Predictions
from seedling.train.round_decision import RoundDecision, judge
from seedling.train.tally import Candidate

PARAMS = TrainParams(bootstrap_draws=1000)


def chances(right: np.ndarray, sure: float = 0.9) -> np.ndarray:
    """Two-class probabilities of rows whose true class is 0: `sure` where right, 1 - sure where not."""
    own = np.where(right, sure, 1 - sure)
    return np.stack([own, 1 - own], axis=1)


def round_decision(
    *both: np.ndarray | list[np.ndarray], changed: float = 0.5, last: bool = False, margin: float = 0.0
) -> RoundDecision:
    old, new = ([each[None] for each in ([one] if isinstance(one, np.ndarray) else one)] for one in both)
    many = old[0].shape[1]
    return judge(
        1,
        0,
        old,
        new,
        np.zeros(many, dtype=np.int64),
        np.arange(many).astype(str),
        changed_share=changed,
        last=last,
        params=PARAMS.model_copy(update={"margin": margin}),
        seed=0,
    )


RIGHT = np.arange(100) < 80


def test_a_round_that_loses_rows_is_rejected_and_rolled_back() -> None:
    """72 right where 80 were: worse with probability near one, so round 0 stays."""
    found = round_decision(chances(RIGHT), chances(np.arange(100) < 72))
    assert (found.decision, found.accepted_round, found.stop) == ("rejected", 0, True)
    assert found.accuracy.value == pytest.approx(-0.08)
    assert "-8.0 points" in found.reason


def test_a_round_that_gains_rows_is_accepted_and_the_loop_goes_on() -> None:
    """88 right where 80 were."""
    found = round_decision(chances(RIGHT), chances(np.arange(100) < 88))
    assert (found.decision, found.accepted_round, found.stop) == ("accepted", 1, False)


def test_log_loss_alone_does_not_reject() -> None:
    """The same rows right: a temperature takes back what sureness did."""
    assert round_decision(chances(RIGHT, 0.9), chances(RIGHT, 0.999)).decision == "accepted"


def test_a_loss_of_rows_that_log_loss_confirms_is_rejected_earlier() -> None:
    """Four rows lost and one won: by the sign test's 26 / 32 worse; rejected where log-loss is worse too, else not."""
    new = RIGHT.copy()
    new[[3, 4, 5, 6]], new[90] = False, True
    found = round_decision(chances(RIGHT), chances(new))
    assert 0.8 <= found.accuracy.probability_worse < 0.95
    assert found.decision == "rejected"
    assert "log-loss" in found.reason
    assert round_decision(chances(RIGHT, 0.999), chances(new, 0.8)).decision == "accepted"


def test_a_loss_within_the_margin_is_accepted() -> None:
    """Ten rows of a hundred lost for certain: rejected, but not where a person allows 20 points."""
    new = RIGHT & (np.arange(100) >= 10)
    assert round_decision(chances(RIGHT), chances(new)).decision == "rejected"
    assert round_decision(chances(RIGHT), chances(new), margin=0.2).decision == "accepted"


def test_what_several_learners_lost_counts_though_the_first_won() -> None:
    """One learner wins ten rows, two lose ten each: 3.3 points less on the mean."""
    won, lost = RIGHT | (np.arange(100) >= 90), RIGHT & (np.arange(100) >= 10)
    found = round_decision([chances(RIGHT)] * 3, [chances(won), chances(lost), chances(lost)])
    assert found.accuracy is not None
    assert round(found.accuracy.value, 4) == round(-10 / 300, 4)


def test_the_loop_stops_when_the_pools_labels_no_longer_change_or_rounds_end() -> None:
    """Accepted, and stopped with the reason."""
    assert round_decision(chances(RIGHT), chances(RIGHT), changed=0.005).stop
    assert "converged" in round_decision(chances(RIGHT), chances(RIGHT), changed=0.005).reason
    assert "last round" in round_decision(chances(RIGHT), chances(RIGHT), last=True).reason


def table() -> TrainingRows:
    """Four labeled rows in folds 0 and 1, a child of each, a template row, four pool rows."""
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


def test_a_folds_lineage_sees_neither_its_rows_nor_their_children() -> None:
    """Lineage 0 learns from fold 1, its children, templates, and its own half's pseudo-labels as lineage 0 made them."""
    chosen, targets, weights = table().of_lineage(0, 0, 0, ("collected", "augment", "synthesize"))
    assert chosen.tolist() == [2, 3, 6, 7, 8, 9]
    assert targets[-1].tolist() == [0, 1]
    assert weights[-1] == 0.5


def test_each_half_of_the_pool_has_its_own_model() -> None:
    """Half 1 learns from rows 10 and 12 alone; lineage 1 has refused row 10."""
    assert table().of_lineage(0, 0, 1, ("collected",))[0].tolist() == [2, 3, 10, 12]
    chosen, _, weights = table().of_lineage(1, 1, 1, ("collected",))
    assert chosen.tolist() == [0, 1, 12]
    assert weights.tolist() == [1, 1, 0.7], "by what lineage 1 itself thinks of the label"


def test_the_final_lineage_sees_every_fold() -> None:
    """No row is held out from the model that is kept."""
    assert table().of_lineage(None, 2, 0, ("collected",))[0].tolist() == [0, 1, 2, 3, 9, 11]


def test_halves_are_about_equal_and_depend_on_the_group_alone() -> None:
    """Near-duplicates are in one half; of 1000 groups about 500 are in each."""
    groups = [f"g{n}" for n in range(1000)]
    halves = pool_halves(groups, 0)
    assert 440 < sum(halves) < 560
    assert halves[:5].tolist() == pool_halves(groups[:5], 0).tolist()
    assert halves.tolist() != pool_halves(groups, 1).tolist()


def predictions(logits: np.ndarray) -> Predictions:
    """Of labeled rows alone."""
    return Predictions(logits, np.zeros((0, 2)), np.zeros((1, 0, 2)), np.zeros(len(logits)), np.zeros((1, 0)))


def test_the_choice_is_the_smallest_log_loss_of_learners_and_ensemble() -> None:
    """A learner that is always right beats one that guesses, and the two together."""
    truth = np.arange(60) % 2
    sure, guess = 4 * np.eye(2)[truth], np.random.default_rng(0).normal(size=(60, 2))
    judged = Judged(truth, np.arange(60), np.arange(60).astype(str), np.ones(60))
    trained = {
        Candidate("svm", ("collected",)): predictions(sure),
        Candidate("random_forest", ("collected",)): predictions(guess),
    }
    found = choose(trained, judged)
    assert [member.learner for member in found.members] == ["svm"]
    assert found.temperatures[0] == fit_temperature(sure, truth)


def test_verdicts_are_plain_json(tmp_path: Path) -> None:
    """As decision.json holds them."""
    known = json.loads(json.dumps(round_decision(chances(RIGHT), chances(RIGHT)).as_json()))
    assert set(known) >= {"round", "decision", "stop", "reason", "accepted_round", "accuracy", "log_loss", "rows"}
    assert set(known["accuracy"]) == {"value", "low", "high", "probability_worse"}

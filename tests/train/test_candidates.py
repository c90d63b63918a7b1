"""The candidates of a round by learner, loss and budget, and those of later rounds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from benches import labeled, training_data
from round_records import candidate, candidates_record

from seedling.config.params import TrainParams, WorkspaceConfig
from seedling.errors import InputError
from seedling.train.candidates import (
    first_candidates,
    first_within_budget,
    further_candidates,
    further_networks,
    later_candidates,
    predicted_seconds,
    within_budget,
)
from seedling.train.tally import Candidate

TEXTS, IMAGES = WorkspaceConfig(modality="text"), WorkspaceConfig(modality="image")


def test_what_does_not_fit_the_budget_is_left_out_with_its_seconds() -> None:
    """The first candidate is always tried, the others while the sum of seconds fits the budget."""
    rows, inputs, _ = labeled(400)
    tried = [Candidate(name, ("collected",)) for name in ("random_forest", "logistic_regression", "svm")]
    kept, seconds, left_out = within_budget(tried, training_data(rows, inputs), 1e-9)
    assert kept == tried[:1]
    assert set(left_out) == set(tried[1:])
    assert seconds > 0 and min(left_out.values()) > 0
    assert within_budget(tried, training_data(rows, inputs), 1e9)[0] == tried


def test_losses_for_imbalance_are_tried_where_classes_are_uneven() -> None:
    """From a class ratio of 2 on; label weights from sixty rows on; a list in params.yaml has priority."""
    even, _, _ = labeled(40)
    best = [Candidate("svm", ("collected",))]
    assert further_candidates(TrainParams(), TEXTS, even, best) == []
    uneven = dataclasses.replace(even, targets=np.eye(2)[(np.arange(40) < 10).astype(int)])
    tried = {candidate.loss for candidate in further_candidates(TrainParams(), TEXTS, uneven, best)}
    assert tried == {"balanced", "logit_adjusted"}
    sixty, _, _ = labeled(60)
    assert {candidate.loss for candidate in further_candidates(TrainParams(), TEXTS, sixty, best)} == {
        "label_weighted",
        "label_weighted_twice",
    }
    few_per_class = labeled(100, classes=50)[0]
    assert further_candidates(TrainParams(), TEXTS, few_per_class, best) == [], "two rows per class"
    assert further_candidates(TrainParams(losses=["plain"]), TEXTS, sixty, best) == []


def test_the_plain_network_is_tried_unless_learning_from_the_pool_is_best_of_all() -> None:
    """It follows where a head is better, where the other network could not be trained, or where no head was tried."""
    with_pool, head = Candidate("network", ("collected",), "consistency"), Candidate("svm", ("collected",))
    plain = Candidate("network", ("collected",))
    assert further_networks([head, with_pool], {head: 0.5, with_pool: 0.4}) == []
    assert further_networks([head, with_pool], {head: 0.5, with_pool: 0.6}) == [plain]
    assert further_networks([head, with_pool], {head: 0.5}) == [plain], "the network with the pool has failed"
    assert further_networks([with_pool], {with_pool: 0.4}) == [plain], "there is nothing to compare it with"
    assert further_networks([with_pool, plain], {with_pool: 0.6, plain: 0.4}) == [], "it has been tried"
    assert further_networks([head], {head: 0.5}) == []


def test_the_budget_for_a_network_with_the_pool_covers_the_plain_one_that_may_follow() -> None:
    """One second less than both need: the plain network takes the place of the other, and the reason says what both take."""
    rows, inputs, _ = labeled(40)
    data = training_data(rows, dataclasses.replace(inputs, images=np.zeros((40, 16, 16, 3), np.uint8)))
    head, with_pool = Candidate("svm", ("collected",)), Candidate("network", ("collected",), "consistency")
    plain = Candidate("network", ("collected",))
    needed = sum(predicted_seconds(candidate, data) for candidate in (head, with_pool, plain))
    candidates, seconds, left_out = first_within_budget([head, with_pool], data, needed + 1)
    assert candidates == [head, with_pool] and left_out == {}
    assert needed - seconds == pytest.approx(predicted_seconds(plain, data)), "the reserve is left for the plain one"
    candidates, _, left_out = first_within_budget([head, with_pool], data, needed - 1)
    assert candidates == [head, plain]
    # 6 models of 20 steps of 0.011 s, and 2.5 times as many seconds with the pool.
    assert left_out == {with_pool: "would take about 3 s of one core, and the network without the pool 1 s"}


def test_without_evaluation_rows_both_networks_are_candidates() -> None:
    """Nothing can be compared then; with evaluation rows, the plain one waits for the result of the other."""
    rows, _, _ = labeled(200)
    pool = dataclasses.replace(rows, ingredient=np.array(["collected"] * 100 + ["pool"] * 100))
    params = TrainParams(candidates=["network"])
    losses = [
        [entry.loss for entry in first_candidates(params, IMAGES, pool, can_evaluate=flag)] for flag in (True, False)
    ]
    assert losses == [["consistency"], ["consistency", "plain"]]


def test_a_learner_that_the_data_does_not_allow_is_an_error() -> None:
    """The network needs images without an encoder, fine-tuning needs an encoder."""
    rows, _, _ = labeled(40)
    with pytest.raises(InputError, match="'fine_tuned' needs an encoder, and no encoder is set"):
        first_candidates(TrainParams(candidates=["fine_tuned"]), TEXTS, rows)
    network = TrainParams(candidates=["network"])
    with pytest.raises(InputError, match=r"'network' learns from small images.*set `encoder` to null"):
        first_candidates(network, IMAGES, rows, has_encoder=True)


def test_later_rounds_train_the_learners_that_learn_from_pseudo_labels(tmp_path: Path) -> None:
    """Logistic regression with the better of its losses, and nearest neighbors, which round 0 did not try."""
    losses = {("network", "plain"): 0.1, ("logistic_regression", "label_weighted"): 0.4, ("svm", "plain"): 0.2}
    losses |= {("logistic_regression", "plain"): 0.5, ("ensemble", "plain"): 0.1}
    tried = [
        candidate(learner, loss=loss, log_loss=1.0, choice_loss=value) for (learner, loss), value in losses.items()
    ]
    candidates_record(*tried).write(tmp_path / "candidates.json")
    rows, _, _ = labeled(42)
    later = later_candidates(TrainParams(), rows, tmp_path)
    assert [(entry.learner, entry.loss) for entry in later] == [
        ("logistic_regression", "label_weighted"),
        ("nearest_neighbors", "plain"),
    ]
    only = later_candidates(TrainParams(candidates=["svm", "network"]), rows, tmp_path)
    assert [entry.learner for entry in only] == ["svm"], "train.candidates decides, but a network is not trained again"
    network = later_candidates(TrainParams(candidates=["network"]), rows, tmp_path)
    assert [entry.learner for entry in network] == ["logistic_regression", "nearest_neighbors"]


def test_nearest_neighbors_are_left_out_of_large_pools(tmp_path: Path) -> None:
    """10,000 rows are enough for them; with one more, logistic regression learns alone."""
    candidates_record(candidate("logistic_regression", log_loss=1.0, choice_loss=1.0)).write(
        tmp_path / "candidates.json"
    )
    for n_rows, learners in ((10_000, ["logistic_regression", "nearest_neighbors"]), (10_001, ["logistic_regression"])):
        rows, _, _ = labeled(n_rows)
        assert [entry.learner for entry in later_candidates(TrainParams(), rows, tmp_path)] == learners

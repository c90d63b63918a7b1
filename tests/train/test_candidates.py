"""The candidates of a round by learner, loss and budget, and those of later rounds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from benches import evaluation_rows, labeled, training_data
from round_records import candidate, candidates_record

from seedling.config.params import TrainParams, WorkspaceConfig
from seedling.errors import InputError
from seedling.progress import silent
from seedling.train.candidates import first_candidates, further_candidates, later_candidates, within_budget
from seedling.train.tally import Candidate
from seedling.train.trial import try_candidates

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


def test_a_learner_that_the_data_does_not_allow_is_an_error() -> None:
    """The network needs images without an encoder, fine-tuning needs an encoder."""
    rows, _, _ = labeled(40)
    with pytest.raises(InputError, match="'fine_tuned' tunes the encoder, and no encoder is set"):
        first_candidates(TrainParams(candidates=["fine_tuned"]), TEXTS, rows)
    network = TrainParams(candidates=["network"])
    with pytest.raises(InputError, match=r"'network' learns from small images.*set `encoder` to null"):
        first_candidates(network, IMAGES, rows, has_encoder=True)


def test_later_rounds_train_each_learners_best_candidate_and_keep_all_carried_ones(tmp_path: Path) -> None:
    """Of two losses of a head the better one; of a network both, since they are not trained again and may be chosen."""
    losses = {
        ("network", "plain"): 0.3,
        ("network", "consistency"): 0.2,
        ("svm", "label_weighted"): 0.4,
        ("svm", "plain"): 0.5,
        ("ensemble", "plain"): 0.1,
    }
    tried = [
        candidate(learner, loss=loss, log_loss=1.0, choice_loss=value) for (learner, loss), value in losses.items()
    ]
    candidates_record(*tried).write(tmp_path / "candidates.json")
    later = later_candidates(tmp_path)
    assert not later.members
    assert [(other.learner, other.loss) for other in later.others] == [
        ("network", "plain"),
        ("network", "consistency"),
        ("svm", "label_weighted"),
    ]


def test_members_of_the_accepted_model_are_tried_again_beyond_the_budget(tmp_path: Path) -> None:
    """A budget for one of three learners, of which two are members: both are tried first, and the third is not."""
    tried = [
        candidate(name, log_loss=0.5, choice_loss=loss, chosen=chosen)
        for name, loss, chosen in (
            ("logistic_regression", 0.1, False),
            ("random_forest", 0.3, True),
            ("nearest_neighbors", 0.2, True),
            ("ensemble", 0.1, True),
        )
    ]
    candidates_record(*tried).write(tmp_path / "candidates.json")
    rows, inputs, truth = labeled(42, classes=2)
    params, config = TrainParams(budget_seconds=1e-9), WorkspaceConfig(modality="image")
    trial = try_candidates(training_data(rows, inputs), params, config, evaluation_rows(truth), tmp_path, silent)
    assert [candidate.learner for candidate in trial.trained] == ["random_forest", "nearest_neighbors"]
    assert [candidate.learner for candidate in trial.left_out] == ["logistic_regression"]


def test_trees_far_behind_are_not_trained_again(tmp_path: Path) -> None:
    """Only the forest is left out: it has 2.1 times the smallest loss, 0.1, and boosted trees have twice that loss.

    Logistic regression is tried again at ten times the smallest loss, since rounds are compared on it.
    """
    losses = {"svm": 0.1, "logistic_regression": 1.0, "random_forest": 0.21, "boosted_trees": 0.2}
    tried = [candidate(name, log_loss=loss, choice_loss=loss, chosen=name == "svm") for name, loss in losses.items()]
    candidates_record(*tried).write(tmp_path / "candidates.json")
    later = later_candidates(tmp_path)
    assert [member.learner for member in later.members] == ["svm"]
    assert [other.learner for other in later.others] == ["logistic_regression", "boosted_trees"]
    reasons = {candidate.learner: reason for candidate, reason in later.dropped.items()}
    assert reasons == {"random_forest": "its log loss, 0.210, was more than 2 times the smallest one, 0.100"}


def test_a_far_behind_forest_that_votes_is_trained_again(tmp_path: Path) -> None:
    """A member of the ensemble stays, whatever its own loss is."""
    tried = [
        candidate("svm", log_loss=0.1, choice_loss=0.1, chosen=True),
        candidate("random_forest", log_loss=0.9, choice_loss=0.9, chosen=True),
    ]
    candidates_record(*tried).write(tmp_path / "candidates.json")
    assert [member.learner for member in later_candidates(tmp_path).members] == ["svm", "random_forest"]

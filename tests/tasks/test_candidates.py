"""What is tried: by learner, loss and budget, and in later rounds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from benches import bench_of, judged, labeled

from seedling.config.params import TrainParams, WorkspaceConfig
from seedling.errors import InputError
from seedling.progress import silent
from seedling.train.candidates import first_candidates, further_candidates, later_candidates, within_budget
from seedling.train.tally import Candidate
from seedling.train.trial import try_candidates

TEXTS, IMAGES = WorkspaceConfig(modality="text"), WorkspaceConfig(modality="image")


def test_what_does_not_fit_the_budget_is_left_out_with_its_seconds() -> None:
    """The first is always tried; the others while the sum fits."""
    rows, inputs, _ = labeled(400)
    tried = [Candidate(name, ("collected",)) for name in ("random_forest", "logistic_regression", "svm")]
    kept, seconds, left_out = within_budget(tried, bench_of(rows, inputs), 1e-9)
    assert kept == tried[:1]
    assert set(left_out) == set(tried[1:])
    assert seconds > 0 and min(left_out.values()) > 0
    assert within_budget(tried, bench_of(rows, inputs), 1e9)[0] == tried


def test_losses_for_imbalance_are_tried_where_classes_are_uneven() -> None:
    """Two to one or more; doubtful labels from sixty rows on; a person's list goes before."""
    even, _, _ = labeled(40)
    best = [Candidate("svm", ("collected",))]
    assert further_candidates(TrainParams(), TEXTS, even, best) == []
    uneven = dataclasses.replace(even, targets=np.eye(2)[(np.arange(40) < 10).astype(int)])
    tried = {one.loss for one in further_candidates(TrainParams(), TEXTS, uneven, best)}
    assert tried == {"balanced", "logit_adjusted"}
    many, _, _ = labeled(60)
    assert {one.loss for one in further_candidates(TrainParams(), TEXTS, many, best)} == {
        "label_weighted",
        "label_weighted_twice",
    }
    few_a_class = labeled(100, classes=50)[0]
    assert further_candidates(TrainParams(), TEXTS, few_a_class, best) == [], "two rows a class"
    assert further_candidates(TrainParams(losses=["plain"]), TEXTS, many, best) == []


def test_a_learner_that_the_data_cannot_have_is_explained() -> None:
    """The network wants images without an encoder, fine-tuning wants an encoder."""
    rows, _, _ = labeled(40)
    with pytest.raises(InputError, match="'fine_tuned' tunes the encoder, and there is none"):
        first_candidates(TrainParams(candidates=["fine_tuned"]), TEXTS, rows)
    network = TrainParams(candidates=["network"])
    with pytest.raises(InputError, match=r"'network' learns from small images.*set `encoder` to null"):
        first_candidates(network, IMAGES, rows, has_encoder=True)


def test_later_rounds_train_each_learners_best_and_lose_nothing_that_they_take_over(tmp_path: Path) -> None:
    """Of two losses of a head the better one; of a network both, since both are there and a vote of them may be the choice."""
    losses = {
        ("network", "plain"): 0.3,
        ("network", "consistency"): 0.2,
        ("svm", "label_weighted"): 0.4,
        ("svm", "plain"): 0.5,
        ("ensemble", "plain"): 0.1,
    }
    tried = [
        {
            "learner": learner,
            "recipe": ["collected"],
            "loss": loss,
            "log_loss": {},
            "choice_loss": value,
            "chosen": False,
        }
        for (learner, loss), value in losses.items()
    ]
    (tmp_path / "candidates.json").write_text(json.dumps({"tried": tried}))
    voted, others = later_candidates(tmp_path)
    assert not voted
    assert [(one.learner, one.loss) for one in others] == [
        ("network", "plain"),
        ("network", "consistency"),
        ("svm", "label_weighted"),
    ]


def test_what_votes_in_the_accepted_model_is_tried_again_whatever_it_takes(tmp_path: Path) -> None:
    """A budget that allows one learner, of three of which two vote: both are tried, first, and the best of the others is not."""
    tried = [
        {
            "learner": name,
            "recipe": ["collected"],
            "loss": "plain",
            "log_loss": 0.5,
            "choice_loss": loss,
            "chosen": chosen,
        }
        for name, loss, chosen in (
            ("logistic_regression", 0.1, False),
            ("random_forest", 0.3, True),
            ("nearest_neighbors", 0.2, True),
            ("ensemble", 0.1, True),
        )
    ]
    (tmp_path / "candidates.json").write_text(json.dumps({"tried": tried}))
    rows, inputs, truth = labeled(42, classes=2)
    params, facts = TrainParams(budget_seconds=1e-9), WorkspaceConfig(modality="image")
    trial = try_candidates(bench_of(rows, inputs), params, facts, judged(truth), tmp_path, silent)
    assert [one.learner for one in trial.trained] == ["random_forest", "nearest_neighbors"]
    assert [one.learner for one in trial.left_out] == ["logistic_regression"]

"""Records of a round with short values, as train writes them."""

from __future__ import annotations

from typing import Any

from seedling.records.candidates import CandidateRecord, CandidatesRecord
from seedling.records.intervals import DifferenceRecord, EstimateRecord
from seedling.records.model import AbstentionRecord, MemberRecord, ModelRecord


def estimate(value: float, half: float = 0.0) -> EstimateRecord:
    """A value with a symmetric interval."""
    return EstimateRecord(value=value, low=value - half, high=value + half)


def difference(value: float, low: float, high: float) -> DifferenceRecord:
    """A difference with its interval; new is as likely worse as not."""
    return DifferenceRecord(value=value, low=low, high=high, probability_worse=0.5)


def candidate(learner: str, **values: Any) -> CandidateRecord:
    """A candidate on collected rows that is not a member of the model, with these values."""
    defaults = {"recipe": ("collected",), "loss": "plain", "accuracy": None, "log_loss": None}
    return CandidateRecord(**{"learner": learner, **defaults, "chosen": False, "vote": 0.0, **values})


def candidates_record(*candidates: CandidateRecord) -> CandidatesRecord:
    """The candidates of a round without analyses."""
    return CandidatesRecord(candidates=candidates, left_out=(), step_contributions=())


def member(learner: str = "logistic_regression", **values: Any) -> MemberRecord:
    """A member with one vote, one model and the file `lr`."""
    defaults = {"recipe": ("collected",), "loss": "plain", "file": "lr", "pool_halves": 1, "temperature": 1.0}
    return MemberRecord(**{"learner": learner, **defaults, "votes": 1.0, **values})


def model_record(*members: MemberRecord, threshold: float = 0.0, **values: Any) -> ModelRecord:
    """The model of round 0 that tells rain from sun by texts. threshold: confidence below which it abstains."""
    abstention = AbstentionRecord(
        threshold=threshold, target_accuracy=0.95, coverage=None, accuracy=None, out_of_scope=0
    )
    defaults = {"round": 0, "modality": "text", "classes": ("rain", "sun"), "temperature": 1.0}
    return ModelRecord(**{**defaults, "members": members, "selective_prediction": abstention, **values})

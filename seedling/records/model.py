"""models/<round>/model.json: the members of the model, their temperatures and votes, and its threshold.

Model files come from other people, too. Each value is checked before it is used, and a member's file is a plain name.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from seedling.config.params import Candidate
from seedling.records.intervals import EstimateRecord
from seedling.records.record import Record, RecordPart

MAX_HALVES = 64
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class MemberRecord(RecordPart):
    """A member of the model.

    recipe: the stages whose rows it was trained on; file: the name in models/<round>/half-<half>/, without its suffix;
    pool_halves: number of trained models, 2 if each learned the pseudo-labels of one half of the pool; votes: its
    weight in the vote.
    """

    learner: Candidate
    recipe: tuple[str, ...]
    loss: str
    file: Annotated[str, Field(pattern=r"^[\w+-]+$", max_length=200)]
    pool_halves: Annotated[int, Field(ge=1, le=MAX_HALVES)]
    temperature: Positive
    votes: Positive


class AbstentionRecord(RecordPart):
    """The confidence threshold below which the model abstains, chosen on the evaluation rows.

    threshold: 0 if the model always answers; coverage, accuracy: share of answered rows, and of right ones among them,
    None without evaluation rows; out_of_scope: number of out-of-scope rows among them.
    """

    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    target_accuracy: Share
    coverage: EstimateRecord | None
    accuracy: EstimateRecord | None
    out_of_scope: Annotated[int, Field(ge=0)]


class ModelRecord(Record):
    """The model of a round. temperature: of the vote of all members."""

    round: Annotated[int, Field(ge=0)]
    modality: Literal["image", "text"]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    members: Annotated[tuple[MemberRecord, ...], Field(min_length=1)]
    temperature: Positive
    selective_prediction: AbstentionRecord

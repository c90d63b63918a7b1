"""model.json of a round: the members of the chosen model, of this round and of the rounds before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from seedling.config.params import Candidate as LearnerName
from seedling.config.params import WorkspaceConfig
from seedling.records.model import AbstentionRecord, MemberRecord, ModelRecord
from seedling.train.choice import Choice
from seedling.train.tally import PREVIOUS_MODEL
from seedling.train.trial import Trial


def model_record(
    choice: Choice,
    trial: Trial,
    previous_members: tuple[MemberRecord, ...],
    classes: Sequence[str],
    config: WorkspaceConfig,
    selective_prediction: AbstentionRecord,
) -> ModelRecord:
    """The content of model.json. previous_members: of the model of the round before, none in round 0."""
    members = tuple(
        MemberRecord(
            learner=cast("LearnerName", member.learner),  # checked by the record
            recipe=member.trained_on,
            loss=member.loss,
            file=trial.file_of(member),
            pool_halves=trial.data.n_models,
            temperature=temperature,
            votes=votes,
        )
        for member, temperature, votes in zip(choice.members, choice.temperatures, choice.votes, strict=True)
        if member != PREVIOUS_MODEL
    )
    return ModelRecord(
        round=trial.round_number,
        modality=config.modality,
        classes=tuple(classes),
        members=(*previous_members, *members),
        temperature=choice.temperature,
        selective_prediction=selective_prediction,
    )

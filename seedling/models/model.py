"""A trained model as it is used: features, members, temperatures. What train writes and evaluate reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from seedling.config.params import Candidate
from seedling.dataset.generation import Modality
from seedling.errors import MissingGeneration
from seedling.features.classical import FeatureMaker, Inputs, Read
from seedling.files.reading import reading
from seedling.models.saving import Learner, load_features, load_learner
from seedling.models.training import FitContext
from seedling.progress import Progress, silent
from seedling.stats.statistics import SMALLEST, Floats, softmax

MAX_HALVES = 64


def soft_vote(
    logits: Sequence[Floats], temperatures: Sequence[float], temperature: float, votes: Sequence[float] | None = None
) -> Floats:
    """(n_rows, n_classes): the members' probabilities, each under its own temperature, averaged and sharpened.

    logits: one array a member; temperature: of the average, on its logarithm; votes: each member's, alike where None.
    """
    each = [softmax(one / own) for one, own in zip(logits, temperatures, strict=True)]
    return softmax(np.log(np.maximum(np.average(each, axis=0, weights=votes), SMALLEST)) / temperature)


@dataclass(frozen=True)
class TrainedModel:
    """The model of one round."""

    classes: list[str]
    features: FeatureMaker
    members: list[list[Learner]]  # a list a member, one learner a half of the pool
    temperatures: list[float]
    temperature: float
    votes: list[float]
    abstain_below: float  # confidence under which the model had better not answer; 0: it always answers

    def probabilities(self, inputs: Inputs) -> Floats:
        """(n_rows, n_classes), rows sum to 1."""
        logits = [np.mean([half.logits(inputs) for half in member], axis=0) for member in self.members]
        return soft_vote(logits, self.temperatures, self.temperature, self.votes)

    def predict_rows(self, ids: Sequence[str], read: Read, progress: Progress = silent) -> Floats:
        """(n_rows, n_classes), in the ids' order; rows that were encoded before are not encoded again."""
        return self.probabilities(self.features.of_rows(ids, read, fit=False, progress=progress))

    def predict(self, payloads: Iterable[bytes | str], at_once: int = 512) -> Floats:
        """(n_rows, n_classes) for encoded images or texts, a block in memory at a time."""
        remaining, parts = iter(payloads), [np.zeros((0, len(self.classes)))]
        while block := list(islice(remaining, at_once)):
            parts.append(self.probabilities(self.features.transform(block)))
        return np.concatenate(parts)


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class MemberRecord(BaseModel):
    """A member of the model, as model.json names it. file: a plain name, so that no path leads out of the model's folder."""

    learner: Candidate
    file: Annotated[str, Field(pattern=r"^[\w+-]+$", max_length=200)]
    halves: Annotated[int, Field(ge=1, le=MAX_HALVES)]
    temperature: Positive
    votes: Positive


class SelectivePredictionRecord(BaseModel):
    """The confidence threshold below which the model abstains, as model.json has it."""

    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ModelRecord(BaseModel):
    """What loading a model needs of its model.json."""

    classes: Annotated[list[str], Field(min_length=1)]
    modality: Modality
    members: Annotated[list[MemberRecord], Field(min_length=1)]
    temperature: Positive
    selective_prediction: SelectivePredictionRecord


def read_record(folder: Path) -> ModelRecord:
    """model.json of `models/<round>`, checked. Raises MissingGeneration where there is none, DamagedFile where it is not one."""
    path = folder / "model.json"
    if not path.is_file():
        raise MissingGeneration(folder, f"train@{folder.name}")
    with reading(path):
        try:
            return ModelRecord.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def load_model(folder: Path, workspace: Path) -> TrainedModel:
    """The model in `models/<round>` of the workspace. Runs no code of its files.

    Raises MissingGeneration where the round trained none, DamagedFile where a file is not that of a model.
    """
    record = read_record(folder)
    maker = load_features(folder, record.modality, workspace)
    setting = FitContext(len(record.classes), maker=maker)
    return TrainedModel(
        classes=record.classes,
        features=maker,
        members=[
            [load_learner(one.learner, folder / f"half-{half}" / one.file, setting) for half in range(one.halves)]
            for one in record.members
        ],
        temperatures=[one.temperature for one in record.members],
        temperature=record.temperature,
        votes=[one.votes for one in record.members],
        abstain_below=record.selective_prediction.threshold,
    )


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread for linear algebra and for torch: sums in another order would give other bytes on other machines."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)

"""A trained model: features, members and temperatures. The train stage writes it; evaluate and predictions read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from seedling.errors import MissingGeneration
from seedling.features.classical import FeatureMaker, Inputs, Read
from seedling.models.saving import Learner, load_features, load_learner
from seedling.models.training import FitContext
from seedling.progress import Progress, silent
from seedling.records.model import ModelRecord
from seedling.stats.statistics import SMALLEST, Floats, softmax
from seedling.workspace import MODEL, half_folder


def soft_vote(
    logits: Sequence[Floats], temperatures: Sequence[float], temperature: float, votes: Sequence[float] | None = None
) -> Floats:
    """(n_rows, n_classes): the weighted mean of the members' calibrated probabilities, with a final temperature.

    softmax(log(Σ_m v_m softmax(z_m / T_m) / Σ_m v_m) / T). logits: one array per member; temperatures: T_m;
    temperature: T; votes: v_m, equal if None.
    """
    calibrated = [
        softmax(member_logits / member_temperature)
        for member_logits, member_temperature in zip(logits, temperatures, strict=True)
    ]
    return softmax(np.log(np.maximum(np.average(calibrated, axis=0, weights=votes), SMALLEST)) / temperature)


@dataclass(frozen=True)
class TrainedModel:
    """The model of one round."""

    classes: list[str]
    features: FeatureMaker
    members: list[list[Learner]]  # one list per member, with one learner per half of the pool
    temperatures: list[float]
    temperature: float
    votes: list[float]
    abstain_below: float  # minimum confidence of a prediction; 0: the model never abstains

    def probabilities(self, inputs: Inputs) -> Floats:
        """(n_rows, n_classes), rows sum to 1."""
        logits = [np.mean([half.logits(inputs) for half in member], axis=0) for member in self.members]
        return soft_vote(logits, self.temperatures, self.temperature, self.votes)

    def predict_rows(self, ids: Sequence[str], read: Read, progress: Progress = silent) -> Floats:
        """(n_rows, n_classes), in the order of the ids; rows that were encoded before come from the cache."""
        return self.probabilities(self.features.of_rows(ids, read, fit=False, progress=progress))

    def predict(self, payloads: Iterable[bytes | str], batch_size: int = 512) -> Floats:
        """(n_rows, n_classes) for encoded images or texts; `batch_size` rows are in memory at a time."""
        remaining, parts = iter(payloads), [np.zeros((0, len(self.classes)))]
        while block := list(islice(remaining, batch_size)):
            parts.append(self.probabilities(self.features.transform(block)))
        return np.concatenate(parts)


def read_record(folder: Path) -> ModelRecord:
    """Read model.json of `models/<round>`.

    Raises MissingGeneration if the file does not exist, DamagedFile if it is invalid.
    """
    path = folder / MODEL
    if not path.is_file():
        raise MissingGeneration(folder, f"train@{folder.name}")
    return ModelRecord.read(path)


def load_model(folder: Path, workspace: Path) -> TrainedModel:
    """Load the model in `models/<round>` of the workspace, without running code from its files.

    Raises MissingGeneration if the round has no model, DamagedFile if a file is not valid.
    """
    record = read_record(folder)
    maker = load_features(folder, record.modality, workspace)
    context = FitContext(len(record.classes), maker=maker)
    return TrainedModel(
        classes=list(record.classes),
        features=maker,
        members=[
            [
                load_learner(member.learner, folder / half_folder(half) / member.file, context)
                for half in range(member.pool_halves)
            ]
            for member in record.members
        ],
        temperatures=[member.temperature for member in record.members],
        temperature=record.temperature,
        votes=[member.votes for member in record.members],
        abstain_below=record.selective_prediction.threshold,
    )


@contextmanager
def single_threaded() -> Iterator[None]:
    """Use one thread for linear algebra and torch: a different order of sums would give different bytes on other
    machines.
    """
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)

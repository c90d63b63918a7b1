"""A trained model as it is used: features, members, temperatures. What train writes and evaluate reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from tasks.errors import MissingGeneration
from tasks.learners.features import FeatureMaker, Inputs, Read
from tasks.learners.saving import Learner, load_features, load_learner
from tasks.learners.training import Setting
from tasks.progress import Progress, silent
from tasks.reading import read_json, reading
from tasks.statistics import SMALLEST, Floats, softmax


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
        """(n_rows, n_classes) for encoded pictures or texts, a block in memory at a time."""
        remaining, parts = iter(payloads), [np.zeros((0, len(self.classes)))]
        while block := list(islice(remaining, at_once)):
            parts.append(self.probabilities(self.features.transform(block)))
        return np.concatenate(parts)


def load_model(folder: Path) -> TrainedModel:
    """The model in `models/<round>`. Raises MissingGeneration where the round trained none, DamagedFile where one of its files was cut."""
    path = folder / "model.json"
    if not path.is_file():
        raise MissingGeneration(folder, f"train@{folder.name}")
    known = read_json(path)
    with reading(path):
        classes, modality = list(known["classes"]), known["modality"]
        members = [
            (one["learner"], one["file"], one["halves"], one["temperature"], one["votes"]) for one in known["members"]
        ]
        temperature, abstain_below = known["temperature"], known["abstain"]["below"]
    maker = load_features(folder, modality)
    setting = Setting(len(classes), maker=maker)
    return TrainedModel(
        classes=classes,
        features=maker,
        members=[
            [load_learner(learner, folder / f"half-{half}" / file, setting) for half in range(halves)]
            for learner, file, halves, _, _ in members
        ],
        temperatures=[one for _, _, _, one, _ in members],
        temperature=temperature,
        votes=[one for _, _, _, _, one in members],
        abstain_below=abstain_below,
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

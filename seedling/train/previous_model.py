"""The model of the round before, as a member of a later round's model."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seedling.files.reading import read_frame, reading
from seedling.records.model import MemberRecord, ModelRecord
from seedling.stats.statistics import SMALLEST, Floats, softmax
from seedling.train.choice import EvaluationRows
from seedling.train.cross_validation import Predictions
from seedling.workspace import MODEL, OUT_OF_FOLD, POOL_PREDICTIONS, VALIDATION_PREDICTIONS, half_folder


@dataclass(frozen=True)
class PreviousModel:
    """The model of the round before.

    folder: `models/<round>`; members: with their votes, 1 for all members of round 0 together and 1 for each learner of
    a later round; logits: the logarithm of the mean of the members' probabilities; temperature: calibrates the logits;
    label_weights: (n_fold_models, n_labeled), see `TrainingData.label_weights`.
    """

    folder: Path
    members: tuple[MemberRecord, ...]
    logits: Predictions
    temperature: float
    label_weights: Floats

    @classmethod
    def read(cls, folder: Path) -> PreviousModel:
        """Read the files that train wrote for a round with a pool."""
        record = ModelRecord.read(folder / MODEL)
        total = sum(member.votes for member in record.members) if record.round == 0 else 1.0
        members = tuple(member.model_copy(update={"votes": member.votes / total}) for member in record.members)
        out_of_fold = read_frame(folder / OUT_OF_FOLD)
        labeled = out_of_fold[out_of_fold["split"] == "train"]
        logits = _read_logits(folder, labeled, record.temperature)
        label_weights = np.stack(labeled["label_weight_by_fold"].tolist()).astype(np.float64).T
        return cls(folder, members, logits, record.temperature, np.ascontiguousarray(label_weights))

    @property
    def votes(self) -> float:
        """The sum of the members' votes."""
        return sum(member.votes for member in self.members)

    @property
    def pool(self) -> Floats:
        """(n_pool, n_classes): the final model's probabilities of the pool."""
        return softmax(self.logits.pool[-1] / self.temperature)

    def evaluated(self, evaluation_rows: EvaluationRows) -> Floats:
        """(n_evaluated, n_classes): probabilities of the evaluation rows."""
        return softmax(evaluation_rows.select(self.logits) / self.temperature)

    def copy_members(self, output: Path) -> None:
        """Copy the files of the members to the folder of this round."""
        for member in self.members:
            for source in self.folder.glob(f"{half_folder('*')}/{member.file}.*"):
                target = output / source.relative_to(self.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)


def _read_logits(folder: Path, labeled: pd.DataFrame, temperature: float) -> Predictions:
    """Undo the temperature: p = softmax(log(m) / T) for the members' mean m, so T log(p) is log(m) plus a constant."""
    from safetensors.numpy import load_file

    pool = read_frame(folder / POOL_PREDICTIONS)
    with reading(folder / VALIDATION_PREDICTIONS):
        validation = load_file(folder / VALIDATION_PREDICTIONS)["probabilities"]

    def logits(probabilities: NDArray[Any]) -> Floats:
        return np.asarray(temperature * np.log(np.maximum(probabilities.astype(np.float64), SMALLEST)))

    labeled_probabilities = np.stack(labeled["probabilities"].tolist())
    by_fold = np.stack(pool["probabilities"].tolist()).reshape(len(pool), -1, labeled_probabilities.shape[1])
    return Predictions(
        labeled=logits(labeled_probabilities),
        validation=logits(validation),
        pool=logits(by_fold.transpose(1, 0, 2)),
        labeled_std=labeled["dropout_std"].to_numpy(dtype=np.float64),
        pool_std=np.stack(pool["dropout_std"].tolist()).astype(np.float64).T,
    )

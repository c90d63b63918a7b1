"""A later round's model is a vote of the model before and of what the pseudo-labels trained, also from its files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shapes import write_images

from seedling.config.params import set_value
from seedling.dataset.generation import payloads, read
from seedling.init.create import make_workspace
from seedling.models.model import load_model
from seedling.pipeline import find_stage
from seedling.runner import run_stage
from seedling.stats.statistics import softmax
from seedling.train.previous_model import PreviousModel


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of small images after round 1; round 0 has two learners and all rounds' models are kept."""
    folder = tmp_path_factory.mktemp("trained")
    workspace = make_workspace(
        folder / "workspace", write_images(folder / "images", labeled=6, pool=40, test=3), "image"
    )
    set_value(workspace, ["train", "candidates"], ["logistic_regression", "svm", "nearest_neighbors"])
    for name in ("scrape", "validate", "augment", "synthesize", "train@0", "pseudo_label@1", "train@1"):
        run_stage(find_stage(name), workspace)
    return workspace


@pytest.mark.slow
def test_the_saved_model_is_the_vote_of_the_model_before_and_of_each_new_learner(trained: Path) -> None:
    """Members of round 0 with one vote together, then one for each learner; by hand from the models in the files."""
    first, later = (load_model(trained / "models" / number, trained) for number in "01")
    rows = read(trained / "generations/validate")
    ids = rows.loc[rows["split"] == "test", "id"].tolist()
    inputs = first.features.of_rows(ids, partial(payloads, [trained / "generations/scrape"]), fit=False)
    n_first = len(first.members)
    assert sum(later.votes[:n_first]) == pytest.approx(1.0)
    assert later.votes[n_first:] == [1.0] * 3
    assert [[half.name for half in member] for member in later.members[n_first:]] == [
        ["logistic_regression"] * 2,
        ["svm"] * 2,
        ["nearest_neighbors"] * 2,
    ]
    mean_of_first = softmax(np.log(first.probabilities(inputs)) * first.temperature)
    new = [
        softmax(np.mean([half.logits(inputs) for half in member], axis=0) / temperature)
        for member, temperature in zip(later.members[n_first:], later.temperatures[n_first:], strict=True)
    ]
    vote = (mean_of_first + sum(new)) / 4
    expected = softmax(np.log(vote) / later.temperature)
    assert later.probabilities(inputs) == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_the_next_round_reads_the_probabilities_that_the_round_before_wrote(trained: Path) -> None:
    """Of the pool by the final model, which stands last in the file; and one label weight per fold model and label."""
    folder = trained / "models/1"
    previous = PreviousModel.read(folder)
    assert previous.votes == pytest.approx(4.0)
    written = np.stack(pd.read_parquet(folder / "pool_predictions.parquet")["probabilities"].tolist())
    n_classes = previous.pool.shape[1]
    assert previous.pool == pytest.approx(written[:, -n_classes:], abs=1e-6)
    n_fold_models = written.shape[1] // n_classes
    assert previous.label_weights.shape == (n_fold_models, len(previous.logits.labeled))

"""Wrong labels found: Seedling's doubt beside cleanlab on the same out-of-fold probabilities, where the wrong labels are known.

    python benchmarks/label_errors.py --data FOLDER --backbone FOLDER [--draws 5] [--promises 20]

FOLDER holds the sets of benchmarks/label_noise.py. Each draw deals the training rows to other folds. cleanlab (2.9) is given what
Seedling's learners say at first sight, before anything is known of wrong labels: logistic regression, neighbors, a linear discriminant where
there are rows enough, and the mean of all; of its three rankings and these probabilities the best counts, chosen by the answer key, and so for its default
decision. The promises of the budget are judged on labels that were made wrong anew, with each seed: evenly, or to the
class that a model trained on the right labels finds likeliest among the wrong ones. Few rows and weak models are judged on draws of 120 and 360 rows,
with right labels and with a tenth made wrong. Repair is judged by the test accuracy of logistic
regression and a support vector machine, voting, that learn from what each policy leaves.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from few_labels import parser_of
from label_noise import SETS
from record import Found, mean_with_interval, write
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve
from sklearn.model_selection import StratifiedKFold

from seedling.config.params import EncoderParams, WorkspaceConfig
from seedling.features.classical import Inputs
from seedling.features.encoder_handle import EncoderHandle
from seedling.label_quality.label_issues import LabelIssues
from seedling.label_quality.label_issues import find_label_issues as seedling_label_issues
from seedling.label_quality.out_of_fold import Learners
from seedling.models.model import single_threaded
from seedling.models.saving import make_features, make_learner
from seedling.models.training import FitContext
from seedling.stats.statistics import fit_temperature, softmax

RANKINGS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
MINUTES, A_MINUTE = (5, 10, 30, 60), 20
FEW = (("trashnet/noise_sym20", True), ("trashnet/noise_sym20", False), ("sms_spam/noise_sym20", False))
NO_CLASS = -1  # what a row truly is where that is none of the classes


@dataclass(frozen=True)
class Rows:
    """Training rows with the labels that were given and the right ones, and test rows; features by Seedling."""

    features: Any
    given: np.ndarray
    right: np.ndarray
    classes: int
    tested: Any
    truth: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """(n_rows,): whether the label is wrong."""
        return self.given != self.right


def load(data: Path, backbone: str | None, setting: str) -> Rows:
    """The set with this file of wrong labels; without a backbone by the features that need none."""
    name, _, file = setting.partition("/")
    frame = pd.read_parquet(data / name / "data.parquet").set_index("id")
    noisy = pd.read_parquet(data / name / f"{file}.parquet").set_index("id")["noisy_label"]
    train, test = frame.loc[noisy.index], frame[frame["split"] == "test"]
    classes = sorted(noisy.unique())
    test = test[test["label"].isin(classes)]
    number = {label: place for place, label in enumerate(classes)}
    modality = "text" if "text" in frame else "image"
    encoder = EncoderParams(model="all-MiniLM-L6-v2" if modality == "text" else backbone) if backbone else None
    with tempfile.TemporaryDirectory() as folder:
        maker = make_features(
            EncoderHandle(encoder, modality, Path(folder)) if encoder else None,
            None,
            WorkspaceConfig(modality=modality),
        )
        learnt = maker.fit_transform(train[modality].tolist()).features
        tested = maker.transform(test[modality].tolist()).features
    right = train["label"].map(number).fillna(NO_CLASS).to_numpy(dtype=np.int64)
    truth = test["label"].map(number).to_numpy(dtype=np.int64)
    return Rows(learnt, noisy.map(number).to_numpy(dtype=np.int64), right, len(classes), tested, truth)


def dealt(given: np.ndarray, seed: int) -> np.ndarray:
    """(n_rows,): folds, by label."""
    fold = np.zeros(len(given), dtype=np.int64)
    parts = StratifiedKFold(5, shuffle=True, random_state=seed).split(given, given)
    for number, (_, mine) in enumerate(parts):
        fold[mine] = number
    return fold


def first_sight(rows: Rows, fold: np.ndarray) -> dict[str, np.ndarray]:
    """Out-of-fold probabilities before anything is known of wrong labels: what cleanlab is given."""
    belief = np.ones(len(fold))
    logits = Learners.of(Inputs(rows.features), fold).fit_predict(rows.given, belief, rows.classes)
    said = {name: softmax(one / fit_temperature(one, rows.given)) for name, one in logits.items()}
    return {**said, "vote": np.mean(list(said.values()), axis=0)}


def scores(name: str, wrong: np.ndarray, score: np.ndarray, flagged: np.ndarray) -> dict[str, float]:
    """Average precision, recall at one and two times the true number, F1 of the decision."""
    order, many = np.argsort(-score, kind="stable"), int(wrong.sum())
    recalls = {f"recall at {times}x": wrong[order[: times * many]].sum() / many for times in (1, 2)}
    found = {"average precision": average_precision_score(wrong, score), **recalls, "F1": f1_score(wrong, flagged)}
    return {f"{name}|{metric}": float(value) for metric, value in found.items()}


def best_f1(wrong: np.ndarray, score: np.ndarray) -> float:
    """What a decision on this ranking could reach at most."""
    precision, recall, _ = precision_recall_curve(wrong, score)
    return float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())


def one_draw(rows: Rows, seed: int) -> tuple[dict[str, float], LabelIssues]:
    """All systems on one dealing of the folds."""
    fold = dealt(rows.given, seed)
    found_by_us = seedling_label_issues(Inputs(rows.features), rows.given, fold, np.ones(len(fold)), rows.classes)
    found = scores("Seedling", rows.wrong, found_by_us.p_label_error, found_by_us.flagged)
    found["Seedling|F1 at the best cut, chosen with the answer key"] = best_f1(rows.wrong, found_by_us.p_label_error)
    peers, plain = [], []
    for given, said in first_sight(rows, fold).items():
        issues = find_label_issues(rows.given, said)
        for ranking in reversed(RANKINGS):  # the default one last
            quality = get_label_quality_scores(rows.given, said, method=ranking)
            peers.append(scores("cleanlab, best", rows.wrong, 1 - quality, issues))
        if given == "vote":
            found |= scores("cleanlab on the mean, default", rows.wrong, 1 - quality, issues)
        own = said[np.arange(len(said)), rows.given]
        plain.append(scores("argmax differs, best", rows.wrong, 1 - own, said.argmax(axis=1) != rows.given))
    for several in (peers, plain):
        found |= {metric: max(one[metric] for one in several) for metric in several[0]}
    for metric in ("average precision", "F1"):
        found[f"Seedling|{metric}, over cleanlab"] = found[f"Seedling|{metric}"] - found[f"cleanlab, best|{metric}"]
    found["Seedling|F1, over cleanlab's on the mean"] = found["Seedling|F1"] - found["cleanlab on the mean, default|F1"]
    return found, found_by_us


def repaired(rows: Rows, found: LabelIssues) -> Iterator[tuple[str, float]]:
    """Test accuracy after each policy."""
    every, weights = np.arange(len(rows.given)), np.ones(len(rows.given))
    believed = np.where(found.flagged, np.maximum(1 - found.p_label_error, 0.01), 1.0)
    known = np.flatnonzero(rows.right != NO_CLASS)
    policies = {
        "nothing done": (every, rows.given, weights),
        "drop": (np.flatnonzero(~found.flagged), rows.given, weights),
        "relabel": (every, np.where(found.flagged, found.suggested_label, rows.given), weights),
        "down-weight": (every, rows.given, believed),
        "right labels": (known, rows.right, weights),
    }
    for name, (chosen, labels, counts) in policies.items():
        logits = []
        for learner in ("logistic_regression", "svm"):
            made = make_learner(learner, FitContext(rows.classes, 0, 1))
            made.fit(Inputs(rows.features[chosen]), np.eye(rows.classes)[labels[chosen]], counts[chosen])
            logits.append(softmax(made.logits(Inputs(rows.tested))))
        yield name, float((np.mean(logits, axis=0).argmax(axis=1) == rows.truth).mean())


def promises(rows: Rows, kind: str, seed: int) -> Iterator[tuple[float, float]]:
    """For each budget that is less than all rows: whether the interval covers the true share, and how wide it is."""
    rng = np.random.default_rng(seed)
    right = rows.right
    made_wrong = rng.random(len(right)) < rng.uniform(0.05, 0.25)
    given = right.copy()
    if kind == "even":
        others = (right + rng.integers(1, rows.classes, len(right))) % rows.classes
    else:
        fold = dealt(right, seed + 1000)
        said = first_sight(replace(rows, given=right), fold)["regression"]
        said[np.arange(len(right)), right] = -1
        others = said.argmax(axis=1)
    given[made_wrong] = others[made_wrong]
    found = seedling_label_issues(Inputs(rows.features), given, dealt(given, seed), np.ones(len(given)), rows.classes)
    order, wrong = np.argsort(-found.p_label_error, kind="stable"), given != right
    for minutes in MINUTES:
        looked_at = minutes * A_MINUTE
        if looked_at < len(right):
            share, promise = wrong[order[:looked_at]].sum() / wrong.sum(), found.share_found(looked_at)
            yield float(promise.low <= share <= promise.high), promise.high - promise.low


def few(rows: Rows, many: int, share: float, seed: int) -> dict[str, float]:
    """Of a few rows, this share with any other label: how many are wrong, how many either system expects to be, and calls so."""
    rng = np.random.default_rng(seed)
    some = np.sort(rng.permutation(np.flatnonzero(rows.right != NO_CLASS))[:many])
    wrong = rng.random(many) < share
    given = np.where(wrong, (rows.right[some] + rng.integers(1, rows.classes, many)) % rows.classes, rows.right[some])
    judged = replace(rows, features=rows.features[some], given=given, right=rows.right[some])
    fold = dealt(given, seed)
    found = seedling_label_issues(Inputs(judged.features), given, fold, np.ones(many), rows.classes)
    return {
        "Seedling|labels that are wrong": float(wrong.mean()),
        "Seedling|expected to be wrong": found.expected / many,
        "Seedling|interval holds the truth": float(found.between[0] - 0.5 <= wrong.sum() <= found.between[1] + 0.5),
        "Seedling|called doubtful": float(found.flagged.mean()),
        "cleanlab on the mean, default|called doubtful": float(
            find_label_issues(given, first_sight(judged, fold)["vote"]).mean()
        ),
    }


def main() -> None:
    """Runs the draws and writes results/label_errors.csv."""
    parser = parser_of(str(__doc__), SETS, draws=5)
    parser.add_argument("--promises", type=int, default=20, help="seeds for the budget's promises, a set and kind")
    asked = parser.parse_args()
    command = f"python benchmarks/label_errors.py --data DATA --backbone BACKBONE --draws {asked.draws} --promises {asked.promises}"
    warnings.filterwarnings("ignore")
    found: list[Found] = []
    promised: set[str] = set()
    for setting in asked.sets:
        rows = load(asked.data, asked.backbone, setting)
        where = f"{setting}, {int(rows.wrong.sum()):,} of {len(rows.given):,} wrong"
        with single_threaded():
            draws = [one_draw(rows, seed) for seed in range(asked.draws)]
            repairs = [dict(repaired(rows, judged)) for _, judged in draws]
            for key in draws[0][0]:
                system, _, metric = key.partition("|")
                values = [one[key] for one, _ in draws]
                found.append(Found(where, system, metric, *mean_with_interval(values), "share", len(values), command))
            for policy in repairs[0]:
                values = [one[policy] for one in repairs]
                found.append(
                    Found(where, policy, "test accuracy", *mean_with_interval(values), "share", len(values), command)
                )
            name = setting.partition("/")[0]
            for kind in ("even", "confusable") if name not in promised else ():
                known = rows.right != NO_CLASS
                judged = replace(rows, features=rows.features[known], given=rows.given[known], right=rows.right[known])
                kept = [one for seed in range(asked.promises) for one in promises(judged, kind, seed)]
                promise = f"{name}, labels made wrong: {kind}"
                for metric, place in (("promises kept", 0), ("width of the interval", 1)):
                    values = [one[place] for one in kept]
                    line = (*mean_with_interval(values), "share", len(values), command)
                    found.append(Found(promise, "Seedling", metric, *line))
            promised.add(name)
        write("label_errors", found)
    for name, has_encoder in FEW:
        rows = load(asked.data, asked.backbone if has_encoder else None, name)
        for many in (120, 360):
            for share in (0.0, 0.1):
                where = f"{name.partition('/')[0]}, {many} rows, {'an' if has_encoder else 'no'} encoder, {share:.0%} made wrong"
                with single_threaded():
                    draws = [few(rows, many, share, seed) for seed in range(asked.promises)]
                for key in draws[0]:
                    system, _, metric = key.partition("|")
                    values = [one[key] for one in draws]
                    line = (*mean_with_interval(values), "share", len(values), command)
                    found.append(Found(where, system, metric, *line))
        write("label_errors", found)


if __name__ == "__main__":
    main()

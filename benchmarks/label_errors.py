"""Compare Seedling's label issues with cleanlab on the same out-of-fold probabilities, on sets with known wrong labels.

    python benchmarks/label_errors.py --data FOLDER --backbone FOLDER [--draws 5] [--promises 20]

FOLDER holds the sets of benchmarks/label_noise.py. Each draw assigns the training rows to different folds. cleanlab
(2.9) gets the first-pass probabilities of Seedling's learners: logistic regression, nearest neighbors, a linear
discriminant for large sets, and the mean of all. The best of its three rankings on these probabilities counts, chosen
with the answer key. The same applies to its default decision.

The review budget's interval is evaluated on labels that are made wrong again with each seed: evenly, or as the most
likely wrong class of a model trained on the correct labels. Small samples and weak models are evaluated on draws of
120 and 360 rows, with correct labels and with 10 % wrong ones. The repair policies are evaluated by the test accuracy
of logistic regression and a support vector machine, averaged.
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
from record import Measurement, mean_with_interval, write
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve
from sklearn.model_selection import StratifiedKFold

from seedling.config.params import EncoderParams, WorkspaceConfig
from seedling.dataset.generation import Modality
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
MINUTES, ROWS_PER_MINUTE = (5, 10, 30, 60), 20
SMALL_SETTINGS = (("trashnet/noise_sym20", True), ("trashnet/noise_sym20", False), ("sms_spam/noise_sym20", False))
NO_CLASS = -1  # true class of a row that belongs to none of the classes


@dataclass(frozen=True)
class Rows:
    """Training rows with their labels and their true classes, and test rows; features by Seedling."""

    features: Any
    labels: np.ndarray
    right: np.ndarray
    classes: int
    tested: Any
    truth: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """Whether the label of a row is wrong: (n_rows,)."""
        return np.asarray(self.labels != self.right)


def load(data: Path, backbone: str | None, setting: str) -> Rows:
    """Load the set with this file of wrong labels; without a backbone, use the features that need no encoder."""
    name, _, file = setting.partition("/")
    frame = pd.read_parquet(data / name / "data.parquet").set_index("id")
    noisy = pd.read_parquet(data / name / f"{file}.parquet").set_index("id")["noisy_label"]
    train, test = frame.loc[noisy.index], frame[frame["split"] == "test"]
    classes = sorted(noisy.unique())
    test = test[test["label"].isin(classes)]
    number = {label: class_index for class_index, label in enumerate(classes)}
    modality: Modality = "text" if "text" in frame else "image"
    encoder = EncoderParams(model="all-MiniLM-L6-v2" if modality == "text" else backbone) if backbone else None
    with tempfile.TemporaryDirectory() as folder:
        maker = make_features(
            EncoderHandle(encoder, modality, Path(folder)) if encoder else None,
            None,
            WorkspaceConfig(modality=modality),
        )
        train_features = maker.fit_transform(train[modality].tolist()).features
        tested = maker.transform(test[modality].tolist()).features
    right = train["label"].map(number).fillna(NO_CLASS).to_numpy(dtype=np.int64)
    truth = test["label"].map(number).to_numpy(dtype=np.int64)
    return Rows(train_features, noisy.map(number).to_numpy(dtype=np.int64), right, len(classes), tested, truth)


def assign_folds(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return folds stratified by label: (n_rows,)."""
    fold = np.zeros(len(labels), dtype=np.int64)
    parts = StratifiedKFold(5, shuffle=True, random_state=seed).split(labels, labels)
    for number, (_, fold_rows) in enumerate(parts):
        fold[fold_rows] = number
    return fold


def first_pass_probabilities(rows: Rows, fold: np.ndarray) -> dict[str, np.ndarray]:
    """Return the out-of-fold probabilities before any estimate of label errors, which cleanlab gets as input."""
    belief = np.ones(len(fold))
    logits = Learners.of(Inputs(rows.features), fold).fit_predict(rows.labels, belief, rows.classes)
    probabilities = {
        name: softmax(learner_logits / fit_temperature(learner_logits, rows.labels))
        for name, learner_logits in logits.items()
    }
    return {**probabilities, "vote": np.mean(list(probabilities.values()), axis=0)}


def scores(name: str, wrong: np.ndarray, score: np.ndarray, flagged: np.ndarray) -> dict[str, float]:
    """Return average precision, recall at one and two times the true number, and F1 of the decision."""
    order, n_wrong = np.argsort(-score, kind="stable"), int(wrong.sum())
    recalls = {f"recall at {times}x": wrong[order[: times * n_wrong]].sum() / n_wrong for times in (1, 2)}
    metrics = {"average precision": average_precision_score(wrong, score), **recalls, "F1": f1_score(wrong, flagged)}
    return {f"{name}|{metric}": float(value) for metric, value in metrics.items()}


def best_f1(wrong: np.ndarray, score: np.ndarray) -> float:
    """Return the highest F1 that a threshold on this ranking can reach."""
    precision, recall, _ = precision_recall_curve(wrong, score)
    return float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())


def one_draw(rows: Rows, seed: int) -> tuple[dict[str, float], LabelIssues]:
    """Run all systems on one assignment of the folds."""
    fold = assign_folds(rows.labels, seed)
    label_issues = seedling_label_issues(Inputs(rows.features), rows.labels, fold, np.ones(len(fold)), rows.classes)
    metrics = scores("Seedling", rows.wrong, label_issues.p_label_error, label_issues.flagged)
    metrics["Seedling|F1 at the best cut, chosen with the answer key"] = best_f1(rows.wrong, label_issues.p_label_error)
    peers, plain = [], []
    for learner, probabilities in first_pass_probabilities(rows, fold).items():
        issues = find_label_issues(rows.labels, probabilities)
        for ranking in reversed(RANKINGS):  # the default ranking comes last
            quality = get_label_quality_scores(rows.labels, probabilities, method=ranking)
            peers.append(scores("cleanlab, best", rows.wrong, 1 - quality, issues))
        if learner == "vote":
            metrics |= scores("cleanlab on the mean, default", rows.wrong, 1 - quality, issues)
        self_confidence = probabilities[np.arange(len(probabilities)), rows.labels]
        plain.append(
            scores("argmax differs, best", rows.wrong, 1 - self_confidence, probabilities.argmax(axis=1) != rows.labels)
        )
    for metrics_of_variants in (peers, plain):
        metrics |= {
            metric: max(peer_metrics[metric] for peer_metrics in metrics_of_variants)
            for metric in metrics_of_variants[0]
        }
    for metric in ("average precision", "F1"):
        metrics[f"Seedling|{metric}, over cleanlab"] = (
            metrics[f"Seedling|{metric}"] - metrics[f"cleanlab, best|{metric}"]
        )
    metrics["Seedling|F1, over cleanlab's on the mean"] = (
        metrics["Seedling|F1"] - metrics["cleanlab on the mean, default|F1"]
    )
    return metrics, label_issues


def repair_accuracies(rows: Rows, label_issues: LabelIssues) -> Iterator[tuple[str, float]]:
    """Yield the test accuracy after each repair policy."""
    all_rows, weights = np.arange(len(rows.labels)), np.ones(len(rows.labels))
    label_weights = np.where(label_issues.flagged, np.maximum(1 - label_issues.p_label_error, 0.01), 1.0)
    has_class = np.flatnonzero(rows.right != NO_CLASS)
    policies = {
        "nothing done": (all_rows, rows.labels, weights),
        "drop": (np.flatnonzero(~label_issues.flagged), rows.labels, weights),
        "relabel": (all_rows, np.where(label_issues.flagged, label_issues.suggested_label, rows.labels), weights),
        "down-weight": (all_rows, rows.labels, label_weights),
        "right labels": (has_class, rows.right, weights),
    }
    for name, (chosen, labels, counts) in policies.items():
        logits = []
        for learner in ("logistic_regression", "svm"):
            fitted = make_learner(learner, FitContext(rows.classes, 0, 1))
            fitted.fit(Inputs(rows.features[chosen]), np.eye(rows.classes)[labels[chosen]], counts[chosen])
            logits.append(softmax(fitted.logits(Inputs(rows.tested))))
        yield name, float((np.mean(logits, axis=0).argmax(axis=1) == rows.truth).mean())


def check_promises(rows: Rows, kind: str, seed: int) -> Iterator[tuple[float, float]]:
    """Yield, for each budget below the number of rows, whether the interval contains the true share, and its width."""
    rng = np.random.default_rng(seed)
    right = rows.right
    made_wrong = rng.random(len(right)) < rng.uniform(0.05, 0.25)
    labels = right.copy()
    if kind == "even":
        others = (right + rng.integers(1, rows.classes, len(right))) % rows.classes
    else:
        fold = assign_folds(right, seed + 1000)
        probabilities = first_pass_probabilities(replace(rows, labels=right), fold)["regression"]
        probabilities[np.arange(len(right)), right] = -1
        others = probabilities.argmax(axis=1)
    labels[made_wrong] = others[made_wrong]
    label_issues = seedling_label_issues(
        Inputs(rows.features), labels, assign_folds(labels, seed), np.ones(len(labels)), rows.classes
    )
    order, wrong = np.argsort(-label_issues.p_label_error, kind="stable"), labels != right
    for minutes in MINUTES:
        n_reviewed = minutes * ROWS_PER_MINUTE
        if n_reviewed < len(right):
            share, promise = wrong[order[:n_reviewed]].sum() / wrong.sum(), label_issues.share_found(n_reviewed)
            yield float(promise.low <= share <= promise.high), promise.high - promise.low


def measure_small_sample(rows: Rows, n_rows: int, share: float, seed: int) -> dict[str, float]:
    """Return the true, expected and reported shares of label errors in a small sample with this share of errors."""
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.permutation(np.flatnonzero(rows.right != NO_CLASS))[:n_rows])
    wrong = rng.random(n_rows) < share
    labels = np.where(
        wrong, (rows.right[sample] + rng.integers(1, rows.classes, n_rows)) % rows.classes, rows.right[sample]
    )
    sample_rows = replace(rows, features=rows.features[sample], labels=labels, right=rows.right[sample])
    fold = assign_folds(labels, seed)
    label_issues = seedling_label_issues(Inputs(sample_rows.features), labels, fold, np.ones(n_rows), rows.classes)
    return {
        "Seedling|labels that are wrong": float(wrong.mean()),
        "Seedling|expected to be wrong": label_issues.expected / n_rows,
        "Seedling|interval holds the truth": float(
            label_issues.between[0] - 0.5 <= wrong.sum() <= label_issues.between[1] + 0.5
        ),
        "Seedling|flagged": float(label_issues.flagged.mean()),
        "cleanlab on the mean, default|flagged": float(
            find_label_issues(labels, first_pass_probabilities(sample_rows, fold)["vote"]).mean()
        ),
    }


def main() -> None:
    """Run the draws and write results/label_errors.csv."""
    parser = parser_of(str(__doc__), SETS, draws=5)
    parser.add_argument(
        "--promises", type=int, default=20, help="number of seeds for the review budget's intervals, per set and kind"
    )
    arguments = parser.parse_args()
    command = (
        f"python benchmarks/label_errors.py --data DATA --backbone BACKBONE --draws {arguments.draws} "
        f"--promises {arguments.promises}"
    )
    warnings.filterwarnings("ignore")
    measurements: list[Measurement] = []
    promised: set[str] = set()
    for setting in arguments.sets:
        rows = load(arguments.data, arguments.backbone, setting)
        where = f"{setting}, {int(rows.wrong.sum()):,} of {len(rows.labels):,} wrong"
        with single_threaded():
            draws = [one_draw(rows, seed) for seed in range(arguments.draws)]
            repairs = [dict(repair_accuracies(rows, issues)) for _, issues in draws]
            for key in draws[0][0]:
                system, _, metric = key.partition("|")
                values = [metrics[key] for metrics, _ in draws]
                measurements.append(
                    Measurement(where, system, metric, *mean_with_interval(values), "share", len(values), command)
                )
            for policy in repairs[0]:
                values = [repair[policy] for repair in repairs]
                measurements.append(
                    Measurement(
                        where, policy, "test accuracy", *mean_with_interval(values), "share", len(values), command
                    )
                )
            name = setting.partition("/")[0]
            for kind in ("even", "confusable") if name not in promised else ():
                has_class = rows.right != NO_CLASS
                sample_rows = replace(
                    rows, features=rows.features[has_class], labels=rows.labels[has_class], right=rows.right[has_class]
                )
                outcomes = [
                    outcome for seed in range(arguments.promises) for outcome in check_promises(sample_rows, kind, seed)
                ]
                promise = f"{name}, labels made wrong: {kind}"
                for metric, position in (("promises kept", 0), ("width of the interval", 1)):
                    values = [outcome[position] for outcome in outcomes]
                    line = (*mean_with_interval(values), "share", len(values), command)
                    measurements.append(Measurement(promise, "Seedling", metric, *line))
            promised.add(name)
        write("label_errors", measurements)
    for name, has_encoder in SMALL_SETTINGS:
        rows = load(arguments.data, arguments.backbone if has_encoder else None, name)
        for n_rows in (120, 360):
            for share in (0.0, 0.1):
                where = (
                    f"{name.partition('/')[0]}, {n_rows} rows, {'an' if has_encoder else 'no'} encoder, "
                    f"{share:.0%} made wrong"
                )
                with single_threaded():
                    samples = [measure_small_sample(rows, n_rows, share, seed) for seed in range(arguments.promises)]
                for key in samples[0]:
                    system, _, metric = key.partition("|")
                    values = [metrics[key] for metrics in samples]
                    line = (*mean_with_interval(values), "share", len(values), command)
                    measurements.append(Measurement(where, system, metric, *line))
        write("label_errors", measurements)


if __name__ == "__main__":
    main()

"""Measure what reviewing buys: accuracy by number of answers, and wrong labels found, simulated with the true labels.

    pip install -e '.[bench]'
    nice -n 10 python benchmarks/review.py --data FOLDER --backbone FOLDER --features FOLDER [--seeds 10]

--data holds a folder per set with data.parquet (id, split, label, and text or image) and files of wrong labels
(id, noisy_label). --features is a folder for the features of the frozen encoders (transformers for images,
sentence-transformers for texts), and for results.json, from which an interrupted run continues.

1. *Answers*: three of four rows of `train` (6,000 at most, drawn by seed) have no label. A simulated person answers
   400 questions with the true label, in batches of 20; after each batch the head is refitted and the rest is ranked
   again. Accuracy is that of the head on the rows of `test`. All orders get the same rows, head and seeds.
2. *Errors*: 1,500 drawn rows with labels from a file of wrong labels, ranked once from the same out-of-fold
   probabilities. Counted are the wrong labels among the first 100, 200 and 300 rows.
3. *One queue*: 300 labeled rows, some of them wrong, and the rest as the pool. An answer about a labeled row corrects
   it, an answer about a pool row adds it. This one takes half of the seeds.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from few_labels import peer_features
from record import Measurement, mean_with_interval, write

from seedling.features.classical import Inputs
from seedling.features.normalization import normalize_rows
from seedling.label_quality.label_issues import find_label_issues
from seedling.label_quality.out_of_fold import Learners
from seedling.models.model import single_threaded
from seedling.review.orders import ORDERS, RankingInput, rank
from seedling.review.refit import fit_head, predict, refit
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import fit_temperature, softmax

SETS = ("trashnet", "hwu64", "banking77_oos", "sms_spam", "clothing_small")
NOISE_FILES = (
    "trashnet/noise_sym20",
    "trashnet/noise_conf20",
    "sms_spam/noise_sym20",
    "sms_spam/noise_conf20",
    "clothing_small/noise_sym20",
    "clothing_small/noise_conf20",
    "banking77_oos/noise_upstream",
)
ORDERS_OF_POOL = tuple(order for order in ORDERS if order != "label_issues")
ORDERS_OF_LABELS = ("expected_value", "label_issues", "cleanlab", "random")
ORDERS_OF_BOTH = ("expected_value", "label_issues", "margin", "random")
ORDERS_WITHOUT_MODEL = ("coreset", "newest", "random", "clusters")
MAX_POOL, ANSWERS, BATCH = 6_000, 400, 20
ROWS_WITH_ERRORS, CHECKED = 1_500, (100, 200, 300)
LABELED_AT_START, ANSWERS_OF_BOTH = 300, 200
POOL_SHARE = 0.75  # of the training rows, so that seeds differ in more than ties
FOLDS = 5
TARGET_ANSWERS = 300  # of the random order, whose accuracy the others have to reach

Curve = list[float]


@dataclass(frozen=True)
class TaskRows:
    """Training rows in the order of the file, and rows on which accuracy is measured; features of length 1."""

    ids: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    evaluation_features: np.ndarray
    evaluation_labels: np.ndarray
    classes: tuple[str, ...]

    def take(self, rows: np.ndarray) -> TaskRows:
        """Return these training rows."""
        return TaskRows(
            self.ids[rows],
            self.features[rows],
            self.labels[rows],
            self.evaluation_features,
            self.evaluation_labels,
            self.classes,
        )


def load(name: str, arguments: argparse.Namespace) -> TaskRows:
    """Load a set, with features centered on the training rows; computes them if the folder has none."""
    frame = pd.read_parquet(arguments.data / name / "data.parquet")
    path = arguments.features / f"{name}.npz"
    if not path.exists():
        ids = frame["id"].to_numpy().astype(str)
        np.savez(path, features=peer_features(frame, arguments.backbone).astype(np.float32), ids=ids)
    features = np.load(path)["features"]
    train = (frame["split"] == "train").to_numpy()
    classes = tuple(sorted(frame.loc[train, "label"].unique()))
    of_class = {label: number for number, label in enumerate(classes)}
    evaluation = frame["split"].isin(arguments.splits).to_numpy() & frame["label"].isin(classes).to_numpy()
    features = normalize_rows(features - features[train].mean(axis=0)).astype(np.float32)
    labels = frame["label"].map(of_class).fillna(-1).to_numpy(dtype=np.int64)
    ids = frame["id"].to_numpy().astype(str)
    return TaskRows(ids[train], features[train], labels[train], features[evaluation], labels[evaluation], classes)


def groups_of(features: np.ndarray) -> np.ndarray:
    """Return near-duplicate groups: (n_rows,), rows with the same features."""
    return np.asarray(np.unique(features.round(4), axis=0, return_inverse=True)[1].ravel())


def accuracy(features: np.ndarray, labels: np.ndarray, rows: TaskRows) -> float:
    """Return the accuracy of a head fitted on these labeled rows, on the evaluation rows."""
    head = fit_head(features, labels, np.ones(len(labels)), len(rows.classes))
    predicted = predict(head, rows.evaluation_features, 1.0).argmax(axis=1)
    return float((predicted == rows.evaluation_labels).mean())


def answer_pool(rows: TaskRows, order: str, seed: int) -> Curve:
    """Return the accuracy after each batch of answers, from no label at all."""
    rng = np.random.default_rng(derived_seed(seed, "pool") % 2**63)
    drawn = rng.permutation(len(rows.labels))[: min(MAX_POOL, int(POOL_SHARE * len(rows.labels)))]
    rows = rows.take(np.sort(drawn))
    groups, n_classes = groups_of(rows.features), len(rows.classes)
    answered: list[int] = []
    curve: Curve = []
    while len(answered) < ANSWERS:
        free = np.setdiff1d(np.arange(len(rows.labels)), answered)
        features, labels = rows.features[answered], rows.labels[answered]
        probabilities, committee = np.full((len(free), n_classes), np.nan, dtype=np.float32), None
        if answered and order not in ORDERS_WITHOUT_MODEL:
            members = 5 if order == "disagreement" else 0
            fitted = refit(
                features,
                labels,
                np.ones(len(labels)),
                n_classes,
                rows.features[free],
                seed,
                members=members,
                estimate_label_errors=False,
            )
            probabilities, committee = fitted.probabilities, fitted.committee
        picked = rank(
            order,
            RankingInput(
                features=rows.features[free],
                probabilities=probabilities,
                labels=np.full(len(free), -1),
                p_label_error=np.full(len(free), np.nan, dtype=np.float32),
                groups=groups[free],
                newest_first=len(rows.labels) - 1 - free,
                reviewed_features=features,
                reviewed_labels=labels,
                committee=committee,
            ),
            BATCH,
            derived_seed(seed, len(answered)) % 2**31,
        )
        answered += free[picked].tolist()
        curve.append(accuracy(rows.features[answered], rows.labels[answered], rows))
    return curve


def noisy_rows(rows: TaskRows, noise_file: Path, seed: int, n_rows: int) -> tuple[TaskRows, np.ndarray]:
    """Return drawn rows that have a label in the file, and these labels: (n_rows,)."""
    noisy = pd.read_parquet(noise_file).set_index("id")["noisy_label"]
    of_class = {label: number for number, label in enumerate(rows.classes)}
    label_of_id = noisy.map(of_class).dropna().astype(int).to_dict()
    usable = np.flatnonzero([row_id in label_of_id for row_id in rows.ids])
    drawn = np.random.default_rng(derived_seed(seed, "noise") % 2**63).permutation(usable)[:n_rows]
    rows = rows.take(np.sort(drawn))
    return rows, np.array([label_of_id[row_id] for row_id in rows.ids], dtype=np.int64)


def find_errors(rows: TaskRows, labels: np.ndarray, seed: int) -> dict[str, list[float]]:
    """Return per order the number of wrong labels among the first CHECKED rows."""
    from cleanlab.rank import get_label_quality_scores

    n_rows, n_classes = len(labels), len(rows.classes)
    fold = np.random.default_rng(derived_seed(seed, "folds") % 2**63).permutation(n_rows) % FOLDS
    inputs, weights = Inputs(rows.features), np.ones(n_rows)
    logits = Learners.of(inputs, fold).fit_predict(labels, weights, n_classes).values()
    mean = np.mean([softmax(values / fit_temperature(values, labels)) for values in logits], axis=0)
    issues = find_label_issues(inputs, labels, fold, weights, n_classes)
    ranking_input = RankingInput(
        features=rows.features,
        probabilities=mean.astype(np.float32),
        labels=labels,
        p_label_error=issues.p_label_error.astype(np.float32),
        groups=np.arange(n_rows),
        newest_first=np.arange(n_rows),
        reviewed_features=rows.features[:0],
        reviewed_labels=labels[:0],
    )
    wrong = labels != rows.labels
    counts = {}
    for order in ORDERS_OF_LABELS:
        if order == "cleanlab":
            ranked = np.argsort(get_label_quality_scores(labels, mean, method="normalized_margin"), kind="stable")
        else:
            ranked = rank(order, ranking_input, max(CHECKED), seed)
        counts[order] = [float(wrong[ranked[:checked]].sum()) for checked in CHECKED]
    return counts


def answer_both(rows: TaskRows, noisy: np.ndarray, order: str, seed: int) -> Curve:
    """Return the accuracy before the first and after each batch of answers about labels and pool rows."""
    labels = np.where(np.arange(len(noisy)) < LABELED_AT_START, noisy, -1)  # the rows are in random order
    is_answered, groups, n_classes = np.zeros(len(labels), dtype=bool), groups_of(rows.features), len(rows.classes)
    labeled = np.flatnonzero(labels >= 0)
    curve = [accuracy(rows.features[labeled], labels[labeled], rows)]
    while is_answered.sum() < ANSWERS_OF_BOTH:
        labeled = np.flatnonzero(labels >= 0)
        free = np.flatnonzero(~is_answered)
        fitted = refit(
            rows.features[labeled], labels[labeled], np.ones(len(labeled)), n_classes, rows.features, seed, members=0
        )
        probabilities, p_label_error = fitted.probabilities.copy(), np.full(len(labels), np.nan, dtype=np.float32)
        probabilities[labeled], p_label_error[labeled] = fitted.out_of_fold, fitted.p_label_error
        picked = rank(
            order,
            RankingInput(
                features=rows.features[free],
                probabilities=probabilities[free],
                labels=labels[free],
                p_label_error=p_label_error[free],
                groups=groups[free],
                newest_first=free,
                reviewed_features=rows.features[labeled],
                reviewed_labels=labels[labeled],
            ),
            BATCH,
            derived_seed(seed, int(is_answered.sum())) % 2**31,
        )
        labels[free[picked]] = rows.labels[free[picked]]
        is_answered[free[picked]] = True
        labeled = np.flatnonzero(labels >= 0)
        curve.append(accuracy(rows.features[labeled], labels[labeled], rows))
    return curve


class Results:
    """The curves measured so far, by experiment, setting, order and seed, in a JSON file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.curves: dict[str, list[float]] = json.loads(path.read_text()) if path.exists() else {}

    def measure(self, key: str, curve: Callable[[], list[float]]) -> None:
        """Measure the curve unless the file has it."""
        if key not in self.curves:
            began = time.perf_counter()
            self.put({key: curve()})
            print(f"{key}: {time.perf_counter() - began:.0f} s", flush=True)

    def put(self, curves: dict[str, list[float]]) -> None:
        """Add curves and write the file."""
        self.curves |= curves
        self.path.write_text(json.dumps(self.curves))

    def of(self, experiment: str, setting: str, order: str, seeds: int) -> np.ndarray:
        """Return the curves: (n_seeds, n_points)."""
        return np.array([self.curves[f"{experiment}|{setting}|{order}|{seed}"] for seed in range(seeds)])


def run(arguments: argparse.Namespace, results: Results) -> Iterator[tuple[str, str]]:
    """Measure all settings, seed by seed; yields each complete setting as (experiment, setting)."""
    for name in arguments.sets:
        rows = load(name, arguments)
        for seed in range(arguments.seeds):
            for order in ORDERS_OF_POOL:
                results.measure(f"answers|{name}|{order}|{seed}", lambda: answer_pool(rows, order, seed))  # noqa: B023
        yield "answers", name
        for setting in (setting for setting in NOISE_FILES if setting.startswith(f"{name}/")):
            noise_file = arguments.data / f"{setting}.parquet"
            for seed in range(arguments.seeds):
                if f"errors|{setting}|random|{seed}" not in results.curves:
                    counts = find_errors(*noisy_rows(rows, noise_file, seed, ROWS_WITH_ERRORS), seed)
                    results.put({f"errors|{setting}|{order}|{seed}": count for order, count in counts.items()})
            yield "errors", setting
            for seed in range(arguments.seeds // 2):
                drawn, noisy = noisy_rows(rows, noise_file, seed, MAX_POOL)
                shuffled = np.random.default_rng(seed).permutation(len(noisy))
                for order in ORDERS_OF_BOTH:
                    results.measure(
                        f"both|{setting}|{order}|{seed}",
                        lambda: answer_both(drawn.take(shuffled), noisy[shuffled], order, seed),  # noqa: B023
                    )
            yield "both", setting


def answers_to_reach(curve: np.ndarray, target: float, batch: int) -> float:
    """Return the number of answers at which the interpolated curve first reaches the target; its end if never."""
    reached = np.flatnonzero(curve >= target)
    if not len(reached):
        return float(len(curve) * batch)
    first = int(reached[0])
    if first == 0:
        return float(batch)
    rise = (target - curve[first - 1]) / (curve[first] - curve[first - 1])
    return float(batch * (first + rise))


Line = tuple[str, str, str, Sequence[float], str]  # setting, system, metric, values over seeds, unit


def summarize_answers(name: str, results: Results, seeds: int) -> Iterator[Line]:
    """Yield the lines of the first simulation of a set."""
    where = f"{name}, from no label"
    curves = {order: results.of("answers", name, order, seeds) for order in ORDERS_OF_POOL}
    areas = {order: curve.mean(axis=1) for order, curve in curves.items()}
    target = float(curves["random"][:, TARGET_ANSWERS // BATCH - 1].mean())
    for order, curve in curves.items():
        yield where, order, "mean accuracy, 20 to 400 answers", areas[order].tolist(), "share"
        for answers in (20, 100, 200, 300):
            accuracies = curve[:, answers // BATCH - 1].tolist()
            yield where, order, f"test accuracy, {answers} answers", accuracies, "share"
        if order == "random":
            continue
        yield where, order, "mean accuracy, minus random", (areas[order] - areas["random"]).tolist(), "share"
        counts = [answers_to_reach(seed_curve, target, BATCH) for seed_curve in curve]
        yield where, order, "answers to random's accuracy at 300", counts, "answers"
        if order != "expected_value":
            differences = (areas["expected_value"] - areas[order]).tolist()
            yield where, "expected_value", f"mean accuracy, minus {order}", differences, "share"


def summarize_errors(setting: str, results: Results, seeds: int) -> Iterator[Line]:
    """Yield the lines of the second simulation of a file of wrong labels."""
    where = f"{setting}, 1,500 labels"
    counts = {order: results.of("errors", setting, order, seeds) for order in ORDERS_OF_LABELS}
    for column, checked in enumerate(CHECKED):
        metric = f"wrong labels in {checked} answers"
        for order in ORDERS_OF_LABELS:
            yield where, order, metric, counts[order][:, column].tolist(), "rows"
        for order in ("expected_value", "label_issues"):
            differences = (counts[order] - counts["cleanlab"])[:, column].tolist()
            yield where, order, f"{metric}, minus cleanlab", differences, "rows"


def summarize_both(setting: str, results: Results, seeds: int) -> Iterator[Line]:
    """Yield the lines of the third simulation of a file of wrong labels."""
    where = f"{setting}, 300 labels and a pool"
    curves = {order: results.of("both", setting, order, seeds // 2) for order in ORDERS_OF_BOTH}
    yield where, "no answers", "test accuracy", curves["random"][:, 0].tolist(), "share"
    for order, curve in curves.items():
        for answers in (100, 200):
            yield where, order, f"test accuracy, {answers} answers", curve[:, answers // BATCH].tolist(), "share"
        if order != "random":
            gains = (curve - curves["random"])[:, 1:].mean(axis=1).tolist()
            yield where, order, "mean accuracy, minus random", gains, "share"


SUMMARIES = {"answers": summarize_answers, "errors": summarize_errors, "both": summarize_both}


def main() -> None:
    """Run the simulations and write results/review.csv after each setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of sets")
    parser.add_argument("--backbone", required=True, help="encoder of images: a local folder or a hub id")
    parser.add_argument("--features", type=Path, required=True, help="folder for features and results.json")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--splits", nargs="+", default=["test"], help="rows on which accuracy is measured")
    arguments = parser.parse_args()
    arguments.features.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore")
    command = (
        f"python benchmarks/review.py --data DATA --backbone BACKBONE --features FEATURES --seeds {arguments.seeds}"
    )
    results, measurements = Results(arguments.features / "results.json"), []
    with single_threaded():
        for experiment, setting in run(arguments, results):
            for where, system, metric, values, unit in SUMMARIES[experiment](setting, results, arguments.seeds):
                interval = mean_with_interval(values)
                measurements.append(Measurement(where, system, metric, *interval, unit, len(values), command))
            write("review", measurements)


if __name__ == "__main__":
    main()

"""Measure whether the report's advice is worth following: simulate each step and compare the first with the others.

    python benchmarks/advice.py --data FOLDER --backbone FOLDER [--draws 20]

FOLDER holds the sets of benchmarks/few_labels.py. A start consists of labeled training rows, some of them with wrong
labels, and the other training rows as the pool. The rows come from four random sources. In every second start, all
wrong labels are in one source, in the others in any source. Seedling's learning curve, label issues and advice use
one half of the test rows to estimate the model's errors.

A step is followed as a user would follow it: the least confident pool rows get their labels, the most likely label
errors are corrected, the labels of a source are corrected, or pool rows of one class get their labels. Each row has
an augmented row, whose features change by a random strength. Leaving the augmented rows out is a step, too. Then the
same learner (logistic regression) is trained again and evaluated on the other half of the test rows. The value of a
random step is the mean of all steps.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from few_labels import parser_of
from record import Measurement, mean_with_interval, write
from sklearn.model_selection import StratifiedKFold

from seedling.config.params import EncoderParams, WorkspaceConfig
from seedling.dataset.training_rows import TrainingRows
from seedling.evaluate.next_steps import Curve, LabelSource, errors_by_class, next_steps
from seedling.features.classical import Inputs
from seedling.features.encoder_handle import EncoderHandle
from seedling.label_quality.label_issues import find_label_issues
from seedling.models.heads import Head
from seedling.models.model import single_threaded
from seedling.models.saving import make_features
from seedling.models.training import FitContext
from seedling.records.candidates import StepContributionRecord
from seedling.records.evaluation import AdviceRecord
from seedling.records.stage_notes import LabelIssueEstimate
from seedling.stats.statistics import softmax, wilson
from seedling.train.choice import EvaluationRows
from seedling.train.learning_curve import learning_curve
from seedling.train.step_contributions import step_contributions
from seedling.train.tally import Candidate
from seedling.train.training_data import TrainingData
from seedling.validate.label_checks import budget

SETS = ("trashnet", "banking77_oos")
LABELS_PER_CLASS, SHARE_OF_LABEL_ERRORS = (
    {"trashnet": (10, 40), "banking77_oos": (5, 15)},
    (0.0, 0.2),
)  # ranges of the labels per class and of the share of wrong labels; uniform
SOURCES = 4
FOLLOWED = {"label", "check_labels", "leave_out", "fix_source", "collect_class"}  # steps that are simulated
AUGMENTATION_STRENGTH = (
    0.2,
    5.0,
)  # range of the noise of augmented rows, in standard deviations of the features; log-uniform


def load(data: Path, name: str, backbone: str) -> tuple[np.ndarray, pd.DataFrame, list[str]]:
    """Return features, rows with label and split, and classes."""
    frame = pd.read_parquet(data / name / "data.parquet")
    labels_in_both_splits = set(frame.loc[frame["split"] == "test", "label"]) & set(
        frame.loc[frame["split"] == "train", "label"]
    )
    frame = frame[frame["split"].isin(["train", "test"]) & frame["label"].isin(labels_in_both_splits)].reset_index(
        drop=True
    )
    modality: Any = "text" if "text" in frame else "image"
    encoder = EncoderParams(model="all-MiniLM-L6-v2" if modality == "text" else backbone)
    with tempfile.TemporaryDirectory() as folder:
        maker = make_features(
            EncoderHandle(encoder, modality, Path(folder)) if encoder else None,
            None,
            WorkspaceConfig(modality=modality),
        )
        features = maker.fit_transform(frame[modality].tolist()).features
    return features, frame, sorted(labels_in_both_splits)


def fit_logistic_regression(features: np.ndarray, rows: np.ndarray, labels: np.ndarray, classes: int) -> Head:
    """Fit logistic regression on these rows."""
    head = Head("logistic_regression", 0, classes)
    head.fit(Inputs(features[rows]), np.eye(classes)[labels], np.ones(len(rows)))
    return head


def fit_with_augmented_rows(
    features: np.ndarray, changed: np.ndarray | None, rows: np.ndarray, labels: np.ndarray, classes: int
) -> Head:
    """Fit logistic regression on these rows and, unless `changed` is None, on their augmented rows at half weight."""
    if changed is None:
        return fit_logistic_regression(features, rows, labels, classes)
    head, n_rows = Head("logistic_regression", 0, classes), len(rows)
    both = np.concatenate([features[rows], changed[rows]])
    head.fit(Inputs(both), np.eye(classes)[np.tile(labels, 2)], np.repeat([1.0, 0.5], n_rows))
    return head


def contribution_of_augmentation(
    features: np.ndarray, changed: np.ndarray, rows: np.ndarray, labels: np.ndarray, fold: np.ndarray, classes: int
) -> list[StepContributionRecord]:
    """Compare the same learner with and without augmented rows on held-out folds, as train does."""
    probabilities_by_candidate = {}
    for training_data, augmented in ((("collected",), None), (("collected", "augment"), changed)):
        probabilities = np.zeros((len(rows), classes))
        for fold_index in np.unique(fold):
            head = fit_with_augmented_rows(
                features, augmented, rows[fold != fold_index], labels[fold != fold_index], classes
            )
            probabilities[fold == fold_index] = softmax(head.logits(Inputs(features[rows[fold == fold_index]])))
        probabilities_by_candidate[Candidate("logistic_regression", training_data)] = probabilities
    evaluation_rows = EvaluationRows(labels, np.arange(len(rows)), rows.astype(str), np.ones(len(rows)))
    return step_contributions(probabilities_by_candidate, evaluation_rows, 1_000, 0)


def training_data_of(
    features: np.ndarray, rows: np.ndarray, labels: np.ndarray, fold: np.ndarray, classes: int
) -> tuple[TrainingData, EvaluationRows]:
    """Return the labeled rows in the form that train uses."""
    n_rows = len(rows)
    names = rows.astype(str)
    training_rows = TrainingRows(
        ids=names,
        ingredient=np.array(["collected"] * n_rows),
        fold=fold,
        targets=np.eye(classes)[labels],
        weights=np.ones(n_rows),
        parents=np.stack([np.arange(n_rows), np.full(n_rows, -1)], axis=1),
        group=names,
        half=np.zeros(n_rows, dtype=np.int64),
        pseudo_label_by_fold=np.full((n_rows, 6), -1),
        pseudo_weight_by_fold=np.zeros((n_rows, 6)),
    )
    inputs = Inputs(features[rows])
    evaluation_rows = EvaluationRows(labels, np.arange(n_rows), names, np.ones(n_rows))
    return TrainingData(training_rows, inputs, inputs.take(np.arange(0)), FitContext(classes, 0, 1)), evaluation_rows


def add_label_errors(
    truth: np.ndarray, source: np.ndarray, bad_source: int | None, classes: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the labels with some of them wrong; if `bad_source` is not None, all errors are in that source."""
    share, labels = rng.uniform(*SHARE_OF_LABEL_ERRORS), truth.copy()
    can_be_wrong = np.full(len(truth), True) if bad_source is None else source == bad_source
    wrong = can_be_wrong & (rng.random(len(truth)) < share * len(truth) / can_be_wrong.sum())
    labels[wrong] = (labels[wrong] + rng.integers(1, classes, size=int(wrong.sum()))) % classes
    return labels


def source_of(advice: AdviceRecord) -> int:
    """Return the source that a step names."""
    return int(advice.text.rpartition(" ")[2])


def rows_of(advice: AdviceRecord) -> int:
    """Return the number of rows that a step names: the first number of its text."""
    first, *_ = re.findall(r"\d[\d,]*", advice.text)
    return int(first.replace(",", ""))


def simulate_start(
    features: np.ndarray, frame: pd.DataFrame, classes: list[str], name: str, seed: int
) -> list[dict[str, Any]]:
    """Return each step with its expected and measured gain; `right`: whether the named source is the worst one."""
    rng = np.random.default_rng(seed)
    truth = frame["label"].map(classes.index).to_numpy()
    train, test = (rng.permutation(np.flatnonzero(frame["split"] == split)) for split in ("train", "test"))
    report_rows, test_rows = test[::2], test[1::2]
    labels_per_class = int(rng.integers(*LABELS_PER_CLASS[name]))
    rows = np.concatenate(
        [train[truth[train] == class_index][:labels_per_class] for class_index in range(len(classes))]
    )
    pool = np.setdiff1d(train, rows)
    source, bad_source = rng.integers(SOURCES, size=len(rows)), seed % SOURCES if seed % 2 else None
    noisy_labels = add_label_errors(truth[rows], source, bad_source, len(classes), rng)
    fold = np.zeros(len(rows), dtype=np.int64)
    for number, (_, fold_rows) in enumerate(
        StratifiedKFold(5, shuffle=True, random_state=seed).split(rows, noisy_labels)
    ):
        fold[fold_rows] = number
    augmentation_rng = np.random.default_rng([seed, 1])  # augmented rows that change a little or completely
    strength = float(np.exp(augmentation_rng.uniform(*np.log(AUGMENTATION_STRENGTH))))
    changed = (features + strength * features.std(axis=0) * augmentation_rng.normal(size=features.shape)).astype(
        np.float32
    )
    head = fit_with_augmented_rows(features, changed, rows, noisy_labels, len(classes))
    right = head.logits(Inputs(features[report_rows])).argmax(axis=1) == truth[report_rows]
    label_issues = find_label_issues(Inputs(features[rows]), noisy_labels, fold, np.ones(len(rows)), len(classes))
    curve_points = learning_curve(*training_data_of(features, rows, noisy_labels, fold, len(classes)))
    curve = Curve.of(curve_points, float(1 - right.mean()), len(report_rows), label_issues.expected / len(rows), seed)
    advice = next_steps(
        curve,
        rows={"pool": len(pool)},
        label_issues=LabelIssueEstimate(
            labels=len(rows),
            expected=label_issues.expected,
            between=label_issues.between,
            flagged=int(label_issues.flagged.sum()),
            policy="report",
            repaired=0,
            unrepaired_classes=(),
            by_class=(),
            pairs=(),
            items_per_minute=20.0,
            budget=budget(label_issues, 20),
        ),
        errors=errors_by_class(right, truth[report_rows], classes),
        labels={
            name_of_class: int((noisy_labels == class_index).sum()) for class_index, name_of_class in enumerate(classes)
        },
        step_contributions=contribution_of_augmentation(features, changed, rows, noisy_labels, fold, len(classes)),
        slices=[],
        has_queue=True,
        training_data={"augment"},
        label_sources=[
            LabelSource(
                "source",
                str(source_index),
                int((source == source_index).sum()),
                float(np.nansum(label_issues.p_label_error[source == source_index])),
            )
            for source_index in range(SOURCES)
        ],
    )
    before = float((head.logits(Inputs(features[test_rows])).argmax(axis=1) == truth[test_rows]).mean())
    confidence = softmax(head.logits(Inputs(features[pool]))).max(axis=1)
    outcomes = []
    for step in (step for step in advice if step.what in FOLLOWED):
        pool_by_confidence = pool[np.argsort(confidence, kind="stable")]
        followed_rows, labels = follow(
            step, rows, noisy_labels, source, truth, pool_by_confidence, label_issues, classes
        )
        augmented = None if step.what == "leave_out" else changed
        model = fit_with_augmented_rows(features, augmented, followed_rows, labels, len(classes))
        after = model.logits(Inputs(features[test_rows])).argmax(axis=1) == truth[test_rows]
        gain = float(after.mean()) - before
        outcome = {"what": step.what, "expected": step.gain.value if step.gain else None, "gained": gain}
        outcomes.append(outcome | ({"right": source_of(step) == bad_source} if step.what == "fix_source" else {}))
    return outcomes


def follow(  # noqa: PLR0913  (the labeled rows, the pool and the truth, each as an array)
    advice: AdviceRecord,
    rows: np.ndarray,
    noisy_labels: np.ndarray,
    source: np.ndarray,
    truth: np.ndarray,
    pool: np.ndarray,
    label_issues: Any,
    classes: list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labeled rows and their labels after the step; `pool` is sorted by confidence, the lowest first."""
    if advice.what == "check_labels":
        labels = noisy_labels.copy()
        checked_rows = np.argsort(-label_issues.p_label_error, kind="stable")[: rows_of(advice)]
        labels[checked_rows] = truth[rows[checked_rows]]
        return rows, labels
    if advice.what == "leave_out":
        return rows, noisy_labels
    if advice.what == "fix_source":
        return rows, np.where(source == source_of(advice), truth[rows], noisy_labels)
    count = rows_of(advice)
    if advice.what == "collect_class":
        name = advice.text.partition("“")[2].partition("”")[0]
        pool = pool[truth[pool] == classes.index(name)]
    followed_rows = np.concatenate([rows, pool[:count]])
    return followed_rows, np.concatenate([noisy_labels, truth[pool[:count]]])


def measure_gains(name: str, starts: list[list[dict[str, Any]]], command: str) -> list[Measurement]:
    """Measure the gains of the first step, of a random one, and of each kind beside its expected gain."""
    starts_with_advice = [start for start in starts if start]
    first, mean = (
        np.array([pick(start) for start in starts_with_advice])
        for pick in (
            lambda outcomes: outcomes[0]["gained"],
            lambda outcomes: np.mean([piece["gained"] for piece in outcomes]),
        )
    )
    setting = f"{name}, {len(starts_with_advice)} starts"
    systems = {"the first piece": first, "a random piece": mean, "first over random": first - mean}
    measurements = [
        Measurement(
            setting,
            system,
            "gain of accuracy",
            *mean_with_interval(values.tolist()),
            "share",
            len(starts_with_advice),
            command,
        )
        for system, values in systems.items()
    ]
    for kind in sorted({piece["what"] for start in starts_with_advice for piece in start}):
        pieces = [piece for start in starts_with_advice for piece in start if piece["what"] == kind]
        for metric, metric_name in (("expected", "gain that is expected"), ("gained", "gain")):
            values = [piece[metric] for piece in pieces if piece[metric] is not None]
            if values:
                measurements.append(
                    Measurement(name, kind, metric_name, *mean_with_interval(values), "share", len(values), command)
                )
    return measurements


def measure_sources(name: str, starts: list[list[dict[str, Any]]], command: str) -> list[Measurement]:
    """Measure how often the advice names a source, and the right one; in every second start one source is worse."""
    measurements = []
    for has_bad_source, group_of_starts in ((True, starts[1::2]), (False, starts[::2])):
        setting = f"{name}, wrong labels of {'one source' if has_bad_source else 'all sources'}"
        round_decisions = [
            [piece["right"] for piece in start if piece["what"] == "fix_source"] for start in group_of_starts
        ]
        counts = (
            {"names that source": sum(True in names_worst for names_worst in round_decisions)} if has_bad_source else {}
        )
        counts |= {"blames another": sum(False in names_worst for names_worst in round_decisions)}
        for metric_name, count in counts.items():
            interval = wilson(count, len(group_of_starts))
            measurements.append(
                Measurement(
                    setting,
                    "fix_source",
                    metric_name,
                    interval.value,
                    interval.low,
                    interval.high,
                    "share",
                    len(group_of_starts),
                    command,
                )
            )
    return measurements


def main() -> None:
    """Run the starts and write results/advice.csv."""
    parser = parser_of(str(__doc__), SETS, draws=20)
    arguments = parser.parse_args()
    command = f"python benchmarks/advice.py --data DATA --backbone BACKBONE --draws {arguments.draws}"
    measurements: list[Measurement] = []
    for name in arguments.sets:
        features, frame, classes = load(arguments.data, name, arguments.backbone)
        with single_threaded():
            starts = [simulate_start(features, frame, classes, name, seed) for seed in range(arguments.draws)]
        measurements += measure_gains(name, starts, command) + measure_sources(name, starts, command)
    write("advice", measurements)


if __name__ == "__main__":
    main()

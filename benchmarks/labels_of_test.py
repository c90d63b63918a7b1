"""Compare the report's estimate of wrong test labels, and cleanlab's on the same probabilities, with the true share.

    python benchmarks/labels_of_test.py --data FOLDER --backbone FOLDER [--draws 20]

FOLDER holds the sets of benchmarks/few_labels.py. A draw has 600 training and 400 test rows. The same share of labels
is changed in both, to any other class (even) or to the class that the model most often confuses with the true one
(confusable). The model is logistic regression. Its temperature is fitted by cross-validation on the changed training
labels, as in train.
"""

from __future__ import annotations

import numpy as np
from advice import fit_logistic_regression, load
from few_labels import parser_of
from record import Measurement, mean_with_interval, write
from sklearn.model_selection import StratifiedKFold

from seedling.features.classical import Inputs
from seedling.label_quality.errors_in_test_labels import label_errors
from seedling.models.model import single_threaded
from seedling.stats.statistics import confusion, fit_temperature, softmax

SETS = ("trashnet", "sms_spam", "banking77_oos")
TRAIN, TEST = {"banking77_oos": 1_500}, 400
RATES = (0.0, 0.05, 0.1, 0.2)


def with_label_errors(
    truth: np.ndarray, rate: float, taken_for: np.ndarray | None, classes: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the labels with this share changed, to any other class or to the most confused class."""
    is_changed = rng.random(len(truth)) < rate
    other = (truth + rng.integers(1, classes, len(truth))) % classes if taken_for is None else taken_for[truth]
    return np.where(is_changed, other, truth)


def draw(
    features: np.ndarray, truth: np.ndarray, classes: int, train: int, rate: float, kind: str, seed: int
) -> dict[str, float]:
    """Return the estimates and the true values of one draw."""
    from cleanlab.count import num_label_issues

    rng = np.random.default_rng(seed)
    order = rng.permutation(len(truth))
    test_rows, rows = order[:TEST], order[TEST : TEST + train]
    taken_for = None
    if kind == "confusable":
        predicted = (
            fit_logistic_regression(features, rows, truth[rows], classes)
            .logits(Inputs(features[test_rows]))
            .argmax(axis=1)
        )
        counts = confusion(predicted, truth[test_rows], classes)
        np.fill_diagonal(counts, 0)
        taken_for = np.where(counts.sum(axis=1) > 0, counts.argmax(axis=1), (np.arange(classes) + 1) % classes)
    labels_of_rows = with_label_errors(truth[rows], rate, taken_for, classes, rng)
    labels = with_label_errors(truth[test_rows], rate, taken_for, classes, rng)
    out_of_fold_logits = np.zeros((len(rows), classes))
    for fit_rows, other in StratifiedKFold(5, shuffle=True, random_state=seed).split(rows, labels_of_rows):
        out_of_fold_logits[other] = fit_logistic_regression(
            features, rows[fit_rows], labels_of_rows[fit_rows], classes
        ).logits(Inputs(features[rows[other]]))
    temperature = fit_temperature(out_of_fold_logits, labels_of_rows)
    shares = softmax(
        fit_logistic_regression(features, rows, labels_of_rows, classes).logits(Inputs(features[test_rows]))
        / temperature
    )
    estimate = label_errors(shares, labels, TEST)
    if estimate is None:
        raise ValueError(f"{TEST} test rows are too few for an estimate")
    wrong, right = float((labels != truth[test_rows]).mean()), float((shares.argmax(axis=1) == truth[test_rows]).mean())
    estimated, accuracy = estimate.rate, estimate.accuracy
    return {
        "rate": wrong,
        "estimated rate": estimated.value,
        "rate within its interval": float(estimated.low - 1e-9 <= wrong <= estimated.high + 1e-9),
        "cleanlab's rate": num_label_issues(labels, shares) / TEST,
        "accuracy against the true classes": right,
        "accuracy against the labels": float((shares.argmax(axis=1) == labels).mean()),
        "estimated accuracy": accuracy.value,
        "accuracy within its interval": float(accuracy.low <= right <= accuracy.high),
    }


def main() -> None:
    """Run the draws and write results/labels_of_test.csv."""
    arguments = parser_of(str(__doc__), SETS, draws=20).parse_args()
    command = f"python benchmarks/labels_of_test.py --data FOLDER --backbone FOLDER --draws {arguments.draws}"
    measurements = []
    for name in arguments.sets:
        features, frame, classes = load(arguments.data, name, arguments.backbone)
        truth = np.array([classes.index(label) for label in frame["label"]])
        for kind in ("even", "confusable"):
            for rate in RATES if kind == "even" else RATES[1:]:
                with single_threaded():
                    draws = [
                        draw(features, truth, len(classes), TRAIN.get(name, 600), rate, kind, seed)
                        for seed in range(arguments.draws)
                    ]
                setting = f"{name}, {100 * rate:.0f} % wrong, {kind}"
                for metric in draws[0]:
                    values = mean_with_interval([result[metric] for result in draws])
                    system = "cleanlab" if metric.startswith("cleanlab") else "Seedling"
                    measurements.append(
                        Measurement(setting, system, metric, *values, "share", arguments.draws, command)
                    )
                print(
                    setting,
                    {metric: round(float(np.mean([result[metric] for result in draws])), 3) for metric in draws[0]},
                    flush=True,
                )
    write("labels_of_test", measurements)


if __name__ == "__main__":
    main()

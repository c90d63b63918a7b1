"""How many of a test split's labels are wrong? The report's estimate, and cleanlab's of the same probabilities, against labels that were changed here.

    python benchmarks/labels_of_test.py --data FOLDER --backbone FOLDER [--draws 20]

FOLDER holds the sets of benchmarks/few_labels.py. A draw is 600 training and 400 test rows; the same share of both has its labels changed, to any other
class (even) or to the one that the model most often takes the class for (confusable). The model is logistic regression, its temperature fitted by
cross-validation on the changed training labels, as train does.
"""

from __future__ import annotations

import numpy as np
from advice import load, taught
from few_labels import parser_of
from record import Found, mean_with_interval, write
from sklearn.model_selection import StratifiedKFold

from seedling.features.classical import Inputs
from seedling.label_quality.test_label_errors import label_errors
from seedling.models.model import single_threaded
from seedling.stats.statistics import confusion, fit_temperature, softmax

SETS = ("trashnet", "sms_spam", "banking77_oos")
TRAIN, TEST = {"banking77_oos": 1_500}, 400
RATES = (0.0, 0.05, 0.1, 0.2)


def changed(
    truth: np.ndarray, rate: float, taken_for: np.ndarray | None, classes: int, rng: np.random.Generator
) -> np.ndarray:
    """The labels, so large a share of them changed to any other class, or to the one that each class is taken for."""
    mine = rng.random(len(truth)) < rate
    other = (truth + rng.integers(1, classes, len(truth))) % classes if taken_for is None else taken_for[truth]
    return np.where(mine, other, truth)


def draw(
    features: np.ndarray, truth: np.ndarray, classes: int, train: int, rate: float, kind: str, seed: int
) -> dict[str, float]:
    """What is said of one draw, and what is so."""
    from cleanlab.count import num_label_issues

    rng = np.random.default_rng(seed)
    order = rng.permutation(len(truth))
    asked, rows = order[:TEST], order[TEST : TEST + train]
    taken_for = None
    if kind == "confusable":
        said = taught(features, rows, truth[rows], classes).logits(Inputs(features[asked])).argmax(axis=1)
        counts = confusion(said, truth[asked], classes)
        np.fill_diagonal(counts, 0)
        taken_for = np.where(counts.sum(axis=1) > 0, counts.argmax(axis=1), (np.arange(classes) + 1) % classes)
    given = changed(truth[rows], rate, taken_for, classes, rng)
    labels = changed(truth[asked], rate, taken_for, classes, rng)
    held = np.zeros((len(rows), classes))
    for one, other in StratifiedKFold(5, shuffle=True, random_state=seed).split(rows, given):
        held[other] = taught(features, rows[one], given[one], classes).logits(Inputs(features[rows[other]]))
    temperature = fit_temperature(held, given)
    shares = softmax(taught(features, rows, given, classes).logits(Inputs(features[asked])) / temperature)
    found = label_errors(shares, labels, TEST) or {}  # of so many rows it always says something
    wrong, right = float((labels != truth[asked]).mean()), float((shares.argmax(axis=1) == truth[asked]).mean())
    estimated, accuracy = found["rate"], found["accuracy"]
    return {
        "rate": wrong,
        "estimated rate": estimated["value"],
        "rate within its interval": float(estimated["low"] - 1e-9 <= wrong <= estimated["high"] + 1e-9),
        "cleanlab's rate": num_label_issues(labels, shares) / TEST,
        "accuracy against the true classes": right,
        "accuracy against the labels": float((shares.argmax(axis=1) == labels).mean()),
        "estimated accuracy": accuracy["value"],
        "accuracy within its interval": float(accuracy["low"] <= right <= accuracy["high"]),
    }


def main() -> None:
    """Writes results/labels_of_test.csv."""
    given = parser_of(str(__doc__), SETS, draws=20).parse_args()
    command = f"python benchmarks/labels_of_test.py --data FOLDER --backbone FOLDER --draws {given.draws}"
    found = []
    for name in given.sets:
        features, frame, known = load(given.data, name, given.backbone)
        truth = np.array([known.index(one) for one in frame["label"]])
        for kind in ("even", "confusable"):
            for rate in RATES if kind == "even" else RATES[1:]:
                with single_threaded():
                    draws = [
                        draw(features, truth, len(known), TRAIN.get(name, 600), rate, kind, seed)
                        for seed in range(given.draws)
                    ]
                setting = f"{name}, {100 * rate:.0f} % wrong, {kind}"
                for metric in draws[0]:
                    values = mean_with_interval([one[metric] for one in draws])
                    system = "cleanlab" if metric.startswith("cleanlab") else "Seedling"
                    found.append(Found(setting, system, metric, *values, "share", given.draws, command))
                print(
                    setting,
                    {metric: round(float(np.mean([one[metric] for one in draws])), 3) for metric in draws[0]},
                    flush=True,
                )
    write("labels_of_test", found)


if __name__ == "__main__":
    main()

"""How many of the test split's own labels are wrong, as far as the model can tell, and what the score would be without them.

A label is taken to be the true class, or with the probability e any other: labels that take a class for the one most like it cannot be told
from the model's own mistakes, and are hardly seen (benchmarks/labels_of_test.py). Of e and of the temperature that takes back what wrong
labels did to the model's confidence, every pair is weighed by how likely it makes the labels (as in Rebbapragada and Brodley 2007, with both
unknown), and no score is replaced by what is found.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from seedling.stats.statistics import SMALLEST, Estimate, Floats, Ints, softmax

RATES = np.linspace(0.0, 0.5, 51)
TEMPERATURES = np.exp(np.linspace(-1.2, 0.4, 17))
BELIEVED_WRONG = 1 / 20  # beforehand, of all labels, as validate believes
SPREAD = 0.4  # of the temperature's logarithm, beforehand
DRAWS = 4_000
FEWEST = 30  # rows that say anything


def label_errors(
    probabilities: Floats, truth: Ints, effective: float, confidence: float = 0.95
) -> dict[str, Any] | None:
    """{"rate": the share of wrong labels, "accuracy": of the model against the true classes}, each with the interval that holds it if the model's
    probabilities are right in kind; None for fewer than `FEWEST` rows.

    probabilities: (n_rows, n_classes), of a model that saw none of the rows; truth: (n_rows,), the labels as they are; effective: as how many rows
    they count, near-duplicates being less than one each.
    """
    rows, classes = probabilities.shape
    if rows < FEWEST or classes < 2:
        return None
    logits, said = np.log(np.maximum(probabilities, SMALLEST)), probabilities.argmax(axis=1)
    agrees = said == truth
    weight, accuracy, spread = (np.zeros((len(TEMPERATURES), len(RATES))) for _ in range(3))
    for row, temperature in enumerate(TEMPERATURES):
        shares = softmax(logits / temperature)
        own, best = shares[np.arange(rows), truth], shares.max(axis=1)
        for column, rate in enumerate(RATES):
            other = rate / (classes - 1)
            likely = (1 - rate) * own + other * (1 - own)
            # That what the model says is the true class, given the label: where they agree, and where they do not.
            true = np.where(agrees, (1 - rate) * best, other * best) / np.maximum(likely, SMALLEST)
            accuracy[row, column], spread[row, column] = (
                true.mean(),
                np.sqrt((true * (1 - true)).sum() / rows / effective),
            )
            weight[row, column] = np.log(np.maximum(likely, SMALLEST)).sum() * effective / rows
        weight[row] += (1 / BELIEVED_WRONG - 2) * np.log1p(-RATES) - (np.log(temperature) / SPREAD) ** 2 / 2
    weight = np.exp(weight - weight.max())
    weight /= weight.sum()
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    # Which of the rows are the wrong ones nobody knows either: of each pair, as many rows right as chance makes of them.
    rng = np.random.default_rng(0)
    drawn = rng.choice(weight.size, size=DRAWS, p=weight.ravel())
    some = np.clip(accuracy.ravel()[drawn] + spread.ravel()[drawn] * rng.normal(size=DRAWS), 0.0, 1.0)
    value = float((accuracy * weight).sum())
    low, high = (float(one) for one in np.quantile(some, tails))
    return {
        "rate": _weighed(np.broadcast_to(RATES, weight.shape), weight, tails).rounded(),
        "accuracy": Estimate(value, min(low, value), max(high, value)).rounded(),
    }


def _weighed(values: Floats, weight: Floats, tails: tuple[float, float]) -> Estimate:
    """The mean, and the values between which all but the tails of the weight lie."""
    order = np.argsort(values, axis=None)
    reached = np.cumsum(weight.ravel()[order])
    places = np.minimum(np.searchsorted(reached, tails), len(order) - 1)
    low, high = (float(one) for one in values.ravel()[order][places])
    return Estimate(float((values * weight).sum()), low, high)

"""Estimate how many labels of the test split are wrong, and the accuracy of the model against the true classes.

With p(k; T) the model's probabilities at the temperature T, K classes, and the noise rate s, a test label l of a row is
drawn from the true class y by

    P(l | y) = 1 - s if l = y, s / (K - 1) otherwise,
    P(l)     = (1 - s) p(l; T) + s / (K - 1) (1 - p(l; T)).

This is the model of the package with uniform errors only. Wrong labels that name the class most like the true one
cannot be told from the model's own mistakes: their likelihood hardly depends on s, so averaging over them would return
the prior. They are rarely detected (benchmarks/labels_of_test.py). Each pair (s, T) of a grid is weighted by the
likelihood of the labels times the prior of s (prior.py) and log T ~ Normal(0, STD_LOG_TEMPERATURE²), as in Rebbapragada
and Brodley (2007) with both unknown. The prior of T is wider than in noise_model.py and allows T well below 1, since
wrong training labels make the evaluated model less confident than it is accurate. The result does not replace any
score.
"""

from __future__ import annotations

import numpy as np

from seedling.label_quality.prior import log_prior
from seedling.records.evaluation import WrongTestLabelsRecord
from seedling.records.intervals import EstimateRecord
from seedling.stats.statistics import SMALLEST, Estimate, Floats, Ints, softmax

NOISE_RATES = np.linspace(0.0, 0.5, 51)
TEMPERATURES = np.exp(np.linspace(-1.2, 0.4, 17))
STD_LOG_TEMPERATURE = 0.4  # of the prior
DRAWS = 4_000
MIN_ROWS = 30


def label_errors(
    probabilities: Floats, truth: Ints, effective: float, confidence: float = 0.95
) -> WrongTestLabelsRecord | None:
    """Estimate the share of wrong labels and the accuracy against the true classes, each with its credible interval.

    The intervals are valid if the model's probabilities are calibrated up to a temperature.

    Args:
        probabilities: (n_rows, n_classes), of a model that was not fitted on the rows.
        truth: (n_rows,), the labels as they are.
        effective: the effective number of rows, in which near-duplicates count less than one each.
        confidence: the probability inside each interval.

    Returns:
        The share of wrong labels and the accuracy against the true classes; None for fewer than `MIN_ROWS` rows.
    """
    rows, classes = probabilities.shape
    if rows < MIN_ROWS or classes < 2:
        return None
    weight, accuracy, deviation = _evaluate_grid(probabilities, truth, effective)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    # The wrong rows are unknown too: for each drawn pair, the number of correct rows varies by chance.
    rng = np.random.default_rng(0)
    drawn = rng.choice(weight.size, size=DRAWS, p=weight.ravel())
    accuracies = accuracy.ravel()[drawn] + deviation.ravel()[drawn] * rng.normal(size=DRAWS)
    value = float((accuracy * weight).sum())
    low, high = (float(limit) for limit in np.quantile(np.clip(accuracies, 0.0, 1.0), tails))
    return WrongTestLabelsRecord(
        rate=EstimateRecord.of(_weighted_estimate(np.broadcast_to(NOISE_RATES, weight.shape), weight, tails)),
        accuracy=EstimateRecord.of(Estimate(value, min(low, value), max(high, value))),
    )


def _evaluate_grid(probabilities: Floats, truth: Ints, effective: float) -> tuple[Floats, Floats, Floats]:
    """(n_temperatures, n_noise_rates) each: posterior weight, mean accuracy, and standard deviation of the accuracy."""
    rows, classes = probabilities.shape
    logits, predicted = np.log(np.maximum(probabilities, SMALLEST)), probabilities.argmax(axis=1)
    agrees = predicted == truth
    log_weight, accuracy, deviation = (np.zeros((len(TEMPERATURES), len(NOISE_RATES))) for _ in range(3))
    for row, temperature in enumerate(TEMPERATURES):
        calibrated = softmax(logits / temperature)
        p_label, p_predicted = calibrated[np.arange(rows), truth], calibrated.max(axis=1)
        for column, rate in enumerate(NOISE_RATES):
            other = rate / (classes - 1)
            likelihood = (1 - rate) * p_label + other * (1 - p_label)
            # P(predicted class is the true class | label), for rows where prediction and label agree and where not.
            joint = np.where(agrees, (1 - rate) * p_predicted, other * p_predicted)
            p_correct = joint / np.maximum(likelihood, SMALLEST)
            accuracy[row, column] = p_correct.mean()
            deviation[row, column] = np.sqrt((p_correct * (1 - p_correct)).sum() / rows / effective)
            log_weight[row, column] = np.log(np.maximum(likelihood, SMALLEST)).sum() * effective / rows
        penalty = (np.log(temperature) / STD_LOG_TEMPERATURE) ** 2 / 2
        log_weight[row] += log_prior(NOISE_RATES) - penalty
    weight = np.exp(log_weight - log_weight.max())
    return weight / weight.sum(), accuracy, deviation


def _weighted_estimate(values: Floats, weight: Floats, tails: tuple[float, float]) -> Estimate:
    """The weighted mean, and the weighted quantiles at the tails."""
    order = np.argsort(values, axis=None)
    cumulative = np.cumsum(weight.ravel()[order])
    positions = np.minimum(np.searchsorted(cumulative, tails), len(order) - 1)
    low, high = (float(limit) for limit in values.ravel()[order][positions])
    return Estimate(float((values * weight).sum()), low, high)

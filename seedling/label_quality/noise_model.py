"""Label noise models: the probability that each label is wrong, given out-of-fold class probabilities.

Notation: row i has the given label l_i and the unknown true class y_i, K is the number of classes, and
p_i(k) = softmax(logits_i / T)_k is the out-of-fold probability of class k at the temperature T.

1. `NoiseMatrixFit` estimates one noise matrix N[k, l] = P(label l | true class k) by expectation maximization (Dawid
   and Skene 1979). It is fast, and its posterior weights the labels while learners are fitted:

       E step:  P(y_i = k | l_i) = p_i(k) N[k, l_i] / sum_j p_i(j) N[j, l_i]
                C[k, l] = sum over rows i with l_i = l of P(y_i = k | l_i)
       M step:  e_k = (sum_{l != k} C[k, l] + n0 s0) / (sum_l C[k, l] + n0),   n0 = PRIOR_ROWS, s0 = MEAN_NOISE_RATE
                N[k, k] = 1 - e_k,   N[k, l] = e_k (C[k, l] + e_k / (K - 1)) / sum_{j != k} (C[k, j] + e_k / (K - 1))

2. `AveragedNoiseModel` averages over many models m = (T, s, noise type), each weighted by its posterior probability
   (Bayesian model averaging; Hoeting et al. 1999). s is the overall noise rate, and the noise rate of class k is

       s_k = s, or min(s r_k, MAX_CLASS_NOISE_RATE) if the noise type has one rate per class,

   where r_k = e_k / (mean noise rate over all rows). A wrong label on a row of class k is l with the probability

       q_i(l | k) = uniform / (K - 1) + confusable p_i(l) / (1 - p_i(k)) + class_pairs W[k, l]
       W[k, l]    = (C[k, l] + 1 / (K - 1)) / (sum_{j != k} C[k, j] + 1),   C without row i itself.

   The model's likelihood of a label, its log weight, and the result are

       L_i(m)       = (1 - s_{l_i}) p_i(l_i) + sum_{k != l_i} s_k p_i(k) q_i(l_i | k)
       log w(m)     = sum_i log L_i(m) - PENALTY_PER_PARAMETER K (parameters per class) + log prior(T) + log prior(s)
       log T        ~ Normal(MEAN_LOG_TEMPERATURE, STD_LOG_TEMPERATURE²),   s ~ Beta(1, 1 / MEAN_NOISE_RATE - 1)
       P(y_i = k | l_i) = sum_m w(m) P_m(y_i = k | l_i),   p_label_error_i = 1 - P(y_i = l_i | l_i).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from seedling.label_quality.prior import MEAN_NOISE_RATE, log_prior
from seedling.parallel.executor import in_threads
from seedling.stats.statistics import SMALLEST, Floats, Ints, fit_temperature, softmax

TEMPERATURES = np.exp(np.linspace(np.log(0.1), np.log(8), 17))
SEARCH_STEPS, STEPS = 20, 50  # steps of expectation maximization: per tried temperature, and for the final fit
MAX_FIT_ROWS = 5_000  # rows used to choose a temperature and to weight models
PRIOR_ROWS = 20.0  # pseudo-rows per class in the prior of the noise matrix, a share MEAN_NOISE_RATE of them wrong
TEMPERATURE_PENALTY_ROWS = 8.0  # labeled rows per class at which a temperature ratio of e costs one nat per row

NOISE_RATES = np.linspace(0.0, np.sqrt(0.6), 25) ** 2  # grid of the overall share of wrong labels
MAX_CLASS_NOISE_RATE = 0.95
MEAN_LOG_TEMPERATURE = np.log(1.1)  # mean over data sets of the temperature that fits correct labels
STD_LOG_TEMPERATURE = 0.2  # standard deviation over data sets
TEMPERATURE_GRID = np.exp(MEAN_LOG_TEMPERATURE + np.linspace(-1.2, 0.8, 21))
PENALTY_PER_PARAMETER = 1.0  # nats per class and estimated parameter
KEPT_WEIGHT = 0.999  # share of the total weight; the least likely models beyond it are dropped
TAIL = 0.025  # probability in each tail of the number of wrong labels
MIN_EVIDENCE_NATS = 3.0  # log-likelihood gain over a noise rate of 0, below which 0 wrong labels remain possible
MISFIT_FACTOR = 1.15  # widens the interval, because no noise model is the true one
BLOCK_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class NoiseType:
    """Which wrong labels people give.

    uniform, confusable, class_pairs: shares that sum to 1. Uniform errors name any other class, confusable errors a
    class that the row resembles, and class-pair errors the classes that other wrong labels of the same true class name.
    rate_per_class: whether each class has its own noise rate.
    """

    uniform: float = 0.0
    confusable: float = 0.0
    class_pairs: float = 0.0
    rate_per_class: bool = False

    @property
    def parameters_per_class(self) -> int:
        """Number of parameters per class that are estimated from the data."""
        return (self.class_pairs > 0) + self.rate_per_class


SIMPLE_NOISE_TYPES = (
    NoiseType(uniform=1.0),
    NoiseType(uniform=0.5, confusable=0.5),
    NoiseType(confusable=1.0),
    NoiseType(uniform=1.0, rate_per_class=True),
    NoiseType(confusable=1.0, rate_per_class=True),
)
NOISE_TYPES = (
    *SIMPLE_NOISE_TYPES,
    NoiseType(confusable=0.5, class_pairs=0.5),
    NoiseType(confusable=0.5, class_pairs=0.5, rate_per_class=True),
)


@dataclass(frozen=True, slots=True)
class NoiseMatrixFit:
    """A noise matrix fitted to out-of-fold logits and labels.

    temperature: of the logits; posterior: (n_rows, n_classes), P(true class | label), 0 for rows that are not
    evaluable; noise_matrix: (n_classes, n_classes), P(label | true class), one true class per row.
    """

    logits: Floats
    labels: Ints
    temperature: float
    posterior: Floats
    noise_matrix: Floats

    @classmethod
    def fit(cls, logits: Floats, labels: Ints, evaluable: NDArray[np.bool_]) -> NoiseMatrixFit:
        """Fit the temperature and the noise matrix.

        logits: (n_rows, n_classes); labels: (n_rows,); evaluable: (n_rows,), the rows that are used.
        """
        temperature = fit_noisy_temperature(logits, labels, evaluable)
        posterior = np.zeros_like(logits)
        probabilities = softmax(logits[evaluable] / temperature)
        posterior[evaluable], noise_matrix, _ = _expectation_maximization(probabilities, labels[evaluable], STEPS)
        return cls(logits, labels, temperature, posterior, noise_matrix)

    @property
    def p_label_correct(self) -> Floats:
        """(n_rows,): the probability that the label is the true class."""
        return np.asarray(self.posterior[np.arange(len(self.labels)), self.labels])


def fit_noisy_temperature(logits: Floats, labels: Ints, evaluable: NDArray[np.bool_]) -> float:
    """Choose the temperature under which the labels are most likely if some of them may be wrong.

    It maximizes mean_i log L_i(T) - (TEMPERATURE_PENALTY_ROWS K / n)² log²(T / T0), where T0 is the temperature fitted
    without label noise. The penalty keeps T near T0 if there are few rows per class: there, wrong labels and weak
    models cannot be told apart.

    logits: (n_rows, n_classes); labels: (n_rows,); evaluable: (n_rows,), the rows that are used.
    """
    rows = _sample_fit_rows(evaluable)
    noise_free = fit_temperature(logits[rows], labels[rows])
    penalty = (TEMPERATURE_PENALTY_ROWS * logits.shape[1] / len(rows)) ** 2

    def objective(temperature: float) -> float:
        _, _, likelihood = _expectation_maximization(softmax(logits[rows] / temperature), labels[rows], SEARCH_STEPS)
        return float(likelihood - penalty * np.log(temperature / noise_free) ** 2)

    return float(TEMPERATURES[int(np.argmax(in_threads(objective, TEMPERATURES.tolist())))])


def calibrated_log_probabilities(logits: Floats, labels: Ints, evaluable: NDArray[np.bool_]) -> Floats:
    """(n_rows, n_classes): log probabilities at the temperature of `fit_noisy_temperature`."""
    return np.asarray(np.log(np.maximum(softmax(logits / fit_noisy_temperature(logits, labels, evaluable)), 1e-9)))


def _sample_fit_rows(evaluable: NDArray[np.bool_]) -> NDArray[np.intp]:
    """At most `MAX_FIT_ROWS` evaluable rows, drawn at random so that the order of the rows does not matter."""
    rows = np.flatnonzero(evaluable)
    return np.sort(np.random.default_rng(0).permutation(rows)[:MAX_FIT_ROWS])


def _expectation_maximization(probabilities: Floats, labels: Ints, steps: int) -> tuple[Floats, Floats, float]:
    """Return the posterior of the true classes, the noise matrix, and the mean log-likelihood of the labels.

    Equations: part 1 of the module docstring. The noise matrix starts at the prior with evenly distributed wrong
    labels. probabilities: (n_rows, n_classes), rows sum to 1; labels: (n_rows,).
    """
    classes = probabilities.shape[1]
    cells = (labels[:, None] * classes + np.arange(classes)).ravel()  # (label, true class) of each value of a posterior
    diagonal = np.eye(classes, dtype=bool)
    noise_matrix = np.where(diagonal, 1 - MEAN_NOISE_RATE, MEAN_NOISE_RATE / max(1, classes - 1))
    for _ in range(steps):
        joint = probabilities * noise_matrix[:, labels].T
        posterior = joint / np.maximum(joint.sum(axis=1, keepdims=True), SMALLEST)
        counts = np.bincount(cells, posterior.ravel(), classes * classes).reshape(classes, classes).T
        rows = counts.sum(axis=1)
        noise_rates = (rows - np.diag(counts) + PRIOR_ROWS * MEAN_NOISE_RATE) / (rows + PRIOR_ROWS)
        wrong_counts = np.where(diagonal, 0.0, counts + noise_rates[:, None] / max(1, classes - 1))
        noise_matrix = (
            wrong_counts / np.maximum(wrong_counts.sum(axis=1, keepdims=True), SMALLEST) * noise_rates[:, None]
        )
        noise_matrix[diagonal] = 1 - noise_rates
    joint = probabilities * noise_matrix[:, labels].T
    total = np.maximum(joint.sum(axis=1), SMALLEST)
    return joint / total[:, None], noise_matrix, float(np.log(total).mean())


@dataclass(frozen=True, slots=True)
class AveragedNoiseModel:
    """The posterior of the true classes, averaged over noise models.

    posterior: (n_rows, n_classes), P(true class | label); p_error_if_labeled: (n_rows, n_classes), the probability of a
    label error that the row would have under each label; fewest, most: interval of the number of wrong labels, with the
    probability `TAIL` in each tail, widened by `MISFIT_FACTOR`.
    """

    posterior: Floats
    p_error_if_labeled: Floats
    fewest: float
    most: float

    @classmethod
    def fit(cls, matrix_fit: NoiseMatrixFit, evaluable: NDArray[np.bool_]) -> AveragedNoiseModel:
        """Weight and average the models of part 2 of the module docstring.

        The ratio r_k of each class's noise rate to the overall rate comes from `matrix_fit`. The class-pair shares W
        come from the posterior of the simple noise types on all other rows. Each costs `PENALTY_PER_PARAMETER` per
        class.

        evaluable: (n_rows,), the rows that are used and evaluated.
        """
        logits, labels = matrix_fit.logits[evaluable], matrix_fit.labels[evaluable]
        fit_rows = _sample_fit_rows(np.ones(int(evaluable.sum()), dtype=bool))
        ratios = _noise_rate_ratios(matrix_fit.posterior[evaluable], matrix_fit.noise_matrix)
        simple = ModelWeights.fit(logits[fit_rows], labels[fit_rows], None, ratios, SIMPLE_NOISE_TYPES)
        first = _in_blocks(lambda rows: _averaged(logits[rows], labels[rows], simple, None, ratios), len(labels))
        pairs = ClassPairs.count(first, labels)
        pair_shares = pairs.leave_one_out(first, labels, fit_rows)
        weights = ModelWeights.fit(logits[fit_rows], labels[fit_rows], pair_shares, ratios, NOISE_TYPES)

        def block_posterior(rows: NDArray[np.intp]) -> Floats:
            return _averaged(logits[rows], labels[rows], weights, pairs.leave_one_out(first, labels, rows), ratios)

        posterior, p_error = np.zeros_like(matrix_fit.logits), np.zeros_like(matrix_fit.logits)
        averaged = _in_blocks(block_posterior, len(labels))
        posterior[evaluable] = averaged
        p_error[evaluable] = _in_blocks(
            lambda rows: p_error_if_labeled(logits[rows], weights, pairs.shares, ratios), len(labels)
        )
        expected = float(len(labels) - averaged[np.arange(len(labels)), labels].sum())
        fewest, most = (expected * ratio for ratio in weights.interval_ratios())
        return cls(posterior, p_error, fewest / MISFIT_FACTOR, min(most * MISFIT_FACTOR, float(len(labels))))


def _noise_rate_ratios(posterior: Floats, noise_matrix: Floats) -> Floats:
    """(n_classes,): each class's noise rate divided by the noise rate of all rows."""
    noise_rates, rows = 1 - np.diag(noise_matrix), posterior.sum(axis=0)
    overall = float((noise_rates * rows).sum() / max(float(rows.sum()), SMALLEST))
    return np.asarray(noise_rates / max(overall, SMALLEST))


def _in_blocks(compute: Callable[[NDArray[np.intp]], Floats], rows: int) -> Floats:
    blocks = [np.arange(first, min(first + BLOCK_ROWS, rows)) for first in range(0, rows, BLOCK_ROWS)]
    return np.concatenate([compute(block) for block in blocks])


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """The posterior weight of each noise model.

    weight: (n_temperatures, n_noise_rates, n_noise_types), sums to 1; wrong: same shape, the number of wrong labels
    among the rows under each model; may_be_none: whether the labels are also plausible without any wrong label.
    """

    weight: Floats
    wrong: Floats
    noise_types: tuple[NoiseType, ...]
    may_be_none: bool

    @classmethod
    def fit(
        cls,
        logits: Floats,
        labels: Ints,
        pair_shares: Floats | None,
        ratios: Floats,
        noise_types: tuple[NoiseType, ...],
    ) -> ModelWeights:
        """Compute the weights by the formulas of part 2 of the module docstring.

        logits: (n_rows, n_classes); labels: (n_rows,); pair_shares: (n_rows, n_classes), from
        `ClassPairs.leave_one_out`; ratios: (n_classes,), each class's noise rate over the overall one.
        """

        def likelihoods(temperature: float) -> tuple[Floats, Floats]:
            return _grid_likelihoods(softmax(logits / temperature), labels, pair_shares, ratios, noise_types)

        per_temperature = in_threads(likelihoods, TEMPERATURE_GRID.tolist())
        log_weight, wrong = (np.array(grids) for grids in zip(*per_temperature, strict=True))
        deviation = (np.log(TEMPERATURE_GRID) - MEAN_LOG_TEMPERATURE) / STD_LOG_TEMPERATURE
        log_weight -= (deviation**2 / 2)[:, None, None]
        may_be_none = bool(log_weight[:, 0].max() > log_weight.max() - MIN_EVIDENCE_NATS)
        # The log density of the prior, plus the log width of each cell of the uneven grid.
        log_weight += (log_prior(NOISE_RATES) + np.log(np.gradient(NOISE_RATES)))[None, :, None]
        weight = np.exp(log_weight - log_weight.max()).ravel()
        order = np.argsort(-weight, kind="stable")
        cumulative = np.cumsum(weight[order]) / weight.sum()
        weight[order[np.searchsorted(cumulative, KEPT_WEIGHT) + 1 :]] = 0.0
        return cls((weight / weight.sum()).reshape(log_weight.shape), wrong, noise_types, may_be_none)

    def interval_ratios(self) -> tuple[float, float]:
        """The `TAIL` and 1 - `TAIL` quantiles of the number of wrong labels, divided by its mean."""
        order = np.argsort(self.wrong, axis=None)
        cumulative = np.cumsum(self.weight.ravel()[order])
        positions = np.minimum(np.searchsorted(cumulative, (TAIL, 1 - TAIL)), len(order) - 1)
        low, high = self.wrong.ravel()[order][positions] / max(float((self.weight * self.wrong).sum()), SMALLEST)
        return 0.0 if self.may_be_none else min(float(low), 1.0), max(float(high), 1.0)

    def models(self) -> Iterator[tuple[float, list[tuple[float, float, NoiseType]]]]:
        """Yield each temperature with its models of nonzero weight: weight, noise rate, noise type."""
        for row, temperature in enumerate(TEMPERATURE_GRID):
            positions = np.argwhere(self.weight[row] > 0).tolist()
            if positions:
                models = [
                    (float(self.weight[row, at_rate, at_type]), float(NOISE_RATES[at_rate]), self.noise_types[at_type])
                    for at_rate, at_type in positions
                ]
                yield float(temperature), models


def _grid_likelihoods(
    probabilities: Floats,
    labels: Ints,
    pair_shares: Floats | None,
    ratios: Floats,
    noise_types: tuple[NoiseType, ...],
) -> tuple[Floats, Floats]:
    """(n_noise_rates, n_noise_types) each: penalized log-likelihood of all labels, expected number of wrong labels."""
    log_likelihood = np.zeros((len(NOISE_RATES), len(noise_types)))
    wrong = np.zeros((len(NOISE_RATES), len(noise_types)))
    p_label, error_terms = _error_terms(probabilities, labels, pair_shares)
    for type_index, noise_type in enumerate(noise_types):
        mixed = _mix(noise_type, error_terms)
        total = mixed.sum(axis=1)
        for rate_index, rate in enumerate(NOISE_RATES):
            class_rates = _class_noise_rates(noise_type, float(rate), ratios)
            p_wrong_label = mixed @ class_rates if noise_type.rate_per_class else rate * total
            likelihood = np.maximum(p_label * (1 - class_rates[labels]) + p_wrong_label, SMALLEST)
            log_likelihood[rate_index, type_index] = np.log(likelihood).sum()
            wrong[rate_index, type_index] = (p_wrong_label / likelihood).sum()
        penalty = PENALTY_PER_PARAMETER * probabilities.shape[1] * noise_type.parameters_per_class
        log_likelihood[:, type_index] -= penalty
    return log_likelihood, wrong


@dataclass(frozen=True, slots=True)
class ClassPairs:
    """The expected number of wrong labels per pair of classes.

    counts: (n_classes, n_classes), C[k, l], the rows of class k with the label l, 0 on the diagonal.
    """

    counts: Floats

    @classmethod
    def count(cls, posterior: Floats, labels: Ints) -> ClassPairs:
        """posterior: (n_rows, n_classes); labels: (n_rows,)."""
        one_hot = sparse.csr_matrix((np.ones(len(labels)), (np.arange(len(labels)), labels)), shape=posterior.shape)
        counts = np.asarray((one_hot.T @ posterior).T)
        np.fill_diagonal(counts, 0.0)
        return cls(counts)

    @property
    def shares(self) -> Floats:
        """(n_classes, n_classes): W[k, l], the share of class k's wrong labels that are l.

        One pseudo-count per class is spread evenly over the other classes.
        """
        classes = len(self.counts)
        shares = (self.counts + 1 / max(1, classes - 1)) / (self.counts.sum(axis=1, keepdims=True) + 1)
        np.fill_diagonal(shares, 0.0)
        return np.asarray(shares)

    def leave_one_out(self, posterior: Floats, labels: Ints, rows: NDArray[np.intp]) -> Floats:
        """(len(rows), n_classes): W[k, l_i] for each row i and class k, computed without row i itself."""
        row_labels, row_counts = labels[rows], posterior[rows]
        row_counts[np.arange(len(rows)), row_labels] = 0.0
        classes = len(self.counts)
        shares = self.counts[:, row_labels].T - row_counts + 1 / max(1, classes - 1)
        shares /= self.counts.sum(axis=1)[None] - row_counts + 1
        shares[np.arange(len(rows)), row_labels] = 0.0
        return np.asarray(np.maximum(shares, 0.0))


def _sum_of_others(values: Floats) -> Floats:
    """(n_rows, n_classes): the sum of the row's other values.

    At the largest value the others are added up instead of subtracting it from the total, which would cancel digits.
    """
    row_numbers, largest = np.arange(len(values)), values.argmax(axis=1)
    rest = values.copy()
    rest[row_numbers, largest] = 0.0
    result = values.sum(axis=1, keepdims=True) - values
    result[row_numbers, largest] = rest.sum(axis=1)
    return np.asarray(np.maximum(result, 0.0))


def _error_terms(probabilities: Floats, labels: Ints, pair_shares: Floats | None) -> tuple[Floats, list[Floats]]:
    """Return p_i(l_i), (n_rows,), and p_i(k) q_i(l_i | k) per pure noise type, (n_rows, n_classes), 0 at k = l_i."""
    row_numbers = np.arange(len(labels))
    p_label = probabilities[row_numbers, labels]
    uniform = probabilities / max(1, probabilities.shape[1] - 1)
    confusable = probabilities * (
        p_label[:, None] / np.maximum(_sum_of_others(probabilities), np.finfo(np.float64).tiny)
    )
    terms = [uniform, confusable, *([] if pair_shares is None else [probabilities * pair_shares])]
    for term in terms:
        term[row_numbers, labels] = 0.0
    return p_label, terms


def _mix(noise_type: NoiseType, terms: Sequence[Floats]) -> Floats:
    parts = zip((noise_type.uniform, noise_type.confusable, noise_type.class_pairs), terms, strict=False)
    return np.asarray(np.sum([share * term for share, term in parts if share], axis=0))


def _class_noise_rates(noise_type: NoiseType, rate: float, ratios: Floats) -> Floats:
    """(n_classes,): s_k, the noise rate of each class."""
    if noise_type.rate_per_class:
        return np.minimum(rate * ratios, MAX_CLASS_NOISE_RATE)
    return np.full(len(ratios), rate)


def _averaged(
    logits: Floats, labels: Ints, weights: ModelWeights, pair_shares: Floats | None, ratios: Floats
) -> Floats:
    """(n_rows, n_classes): P(true class | label), averaged over all models of nonzero weight."""
    result, row_numbers = np.zeros_like(logits), np.arange(len(labels))
    for temperature, models in weights.models():
        p_label, error_terms = _error_terms(softmax(logits / temperature), labels, pair_shares)
        for weight, rate, noise_type in models:
            class_rates = _class_noise_rates(noise_type, rate, ratios)
            joint = _mix(noise_type, error_terms) * class_rates
            joint[row_numbers, labels] = (1 - class_rates[labels]) * p_label
            result += weight * joint / np.maximum(joint.sum(axis=1, keepdims=True), SMALLEST)
    return np.asarray(result / np.maximum(result.sum(axis=1, keepdims=True), SMALLEST))


def p_error_if_labeled(logits: Floats, weights: ModelWeights, pair_shares: Floats, ratios: Floats) -> Floats:
    """(n_rows, n_classes): the probability of a label error that each row would have under each label l.

    It is sum_m w(m) M_l / ((1 - s_l) p(l) + M_l) with M_l = sum_{k != l} s_k p(k) q(l | k).
    pair_shares: (n_classes, n_classes), from `ClassPairs.shares`; ratios: (n_classes,).
    """
    result = np.zeros_like(logits)
    uniform = (1 - np.eye(logits.shape[1])) / max(1, logits.shape[1] - 1)
    for temperature, models in weights.models():
        probabilities = softmax(logits / temperature)
        odds = probabilities / np.maximum(_sum_of_others(probabilities), np.finfo(np.float64).tiny)
        for weight, rate, noise_type in models:
            class_rates = _class_noise_rates(noise_type, rate, ratios)
            p_wrong_label = noise_type.confusable * probabilities * _sum_of_others(odds * class_rates)
            for share, label_shares in ((noise_type.uniform, uniform), (noise_type.class_pairs, pair_shares)):
                if share:
                    p_wrong_label += share * ((probabilities * class_rates) @ label_shares)
            p_correct_label = (1 - class_rates) * probabilities
            result += weight * p_wrong_label / np.maximum(p_correct_label + p_wrong_label, SMALLEST)
    return result

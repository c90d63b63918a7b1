"""How wrong labels explain what was given: by models of the mistakes that people make, beside an opinion of what each row is.

`Explained` fits one model of many numbers, how often a row of each class carries each label, by expectation maximisation (after Dawid and
Skene 1979): quick, and good enough to teach by. `Mistakes` says how likely each label is wrong: it weighs a few simple models, each by how likely it
makes the labels, and gives no single one the last word (Bayesian model averaging; Hoeting et al. 1999).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tasks.parallel import in_threads
from tasks.statistics import SMALLEST, Floats, Ints, fit_temperature, softmax

TEMPERATURES = np.exp(np.linspace(np.log(0.1), np.log(8), 17))
STEPS_TO_CHOOSE, STEPS = 20, 50  # of expectation maximisation
ROWS_TO_CHOOSE = 5_000  # by which a temperature is chosen and models are weighed
USUAL_ROWS = 20.0  # the prior: so many rows of each class beforehand,
USUAL_SHARE = 0.05  # and of their labels this share is wrong
UNSURE = 8.0  # labelled rows a class with which a temperature e times as sharp as the plain one must gain a nat a row

EVEN, CONFUSABLE, BY_CLASS = range(
    3
)  # what a wrong label may name: any other class, one that the row looks like, its class' own
WAYS = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.0), (0.0, 1.0, 0.0))  # in these shares
LEARNT = (0.0, 0.5, 0.5)  # and this, when it is known what the wrong labels of a class name
PRICE = 1.0  # nats a class that its own mistakes must explain
SHARES = np.linspace(0.0, np.sqrt(0.6), 25) ** 2  # of wrong labels
BELIEVED_WRONG = 1 / 10  # of all labels, beforehand
USUAL_TEMPERATURE, SPREAD = (
    np.log(1.1),
    0.2,
)  # logarithm, of opinions that agree with right labels, and how far it varies between sets
SHARPNESS = np.exp(USUAL_TEMPERATURE + np.linspace(-1.2, 0.8, 21))
NEGLIGIBLE = 1e-3  # weight of a model
TAIL = 0.025  # of how many are wrong, to either side
MISFIT = 1.15  # times as many or as few, as no model of mistakes is the true one


@dataclass(frozen=True, slots=True)
class Explained:
    """An opinion and the given labels, explained by wrong labels.

    temperature: the opinion's, and plain: the one that takes all labels for right; posterior: (n_rows, n_classes), what each
    row is; carries: (n_classes, n_classes), of a class's rows, how many carry which label.
    """

    logits: Floats
    given: Ints
    temperature: float
    plain: float
    posterior: Floats
    carries: Floats

    @classmethod
    def by(cls, logits: Floats, given: Ints, known: NDArray[np.bool_]) -> Explained:
        """The temperature is the one under which the given labels are likeliest, when some may be wrong. The plain one, which takes all
        labels for right, is kept where few rows a class speak for another: there wrong labels and weak models look alike.

        logits: (n_rows, n_classes); known: (n_rows,), the rows that have a say in it.
        """
        rows = _some(known)
        plain = fit_temperature(logits[rows], given[rows])
        price = (UNSURE * logits.shape[1] / len(rows)) ** 2

        def gain(temperature: float) -> float:
            _, _, likelihood = _posterior(softmax(logits[rows] / temperature), given[rows], STEPS_TO_CHOOSE)
            return float(likelihood - price * np.log(temperature / plain) ** 2)

        best = float(TEMPERATURES[int(np.argmax(in_threads(gain, TEMPERATURES.tolist())))])
        posterior = np.zeros_like(logits)
        posterior[known], carries, _ = _posterior(softmax(logits[known] / best), given[known], STEPS)
        return cls(logits, given, best, plain, posterior, carries)

    @property
    def logarithms(self) -> Floats:
        """(n_rows, n_classes): of the opinion's probabilities."""
        return np.asarray(np.log(np.maximum(softmax(self.logits / self.temperature), 1e-9)))

    @property
    def believed(self) -> Floats:
        """(n_rows,): the probability that the row is what its label says."""
        return np.asarray(self.posterior[np.arange(len(self.given)), self.given])


def _some(known: NDArray[np.bool_]) -> NDArray[np.intp]:
    rows = np.flatnonzero(known)
    return rows[:: -(-len(rows) // ROWS_TO_CHOOSE)]


def _posterior(probabilities: Floats, given: Ints, steps: int) -> tuple[Floats, Floats, float]:
    """What each row is, from the opinion and its label; how often a class's rows carry which label; the labels' mean log-likelihood.

    A class's share of wrong labels starts from the prior, and so do the classes that they name: evenly. probabilities:
    (n_rows, n_classes), rows sum to 1; given: (n_rows,).
    """
    classes = probabilities.shape[1]
    labels = sparse.csr_matrix((np.ones(len(given)), (np.arange(len(given)), given)), shape=probabilities.shape)
    own = np.eye(classes, dtype=bool)
    carries = np.where(own, 1 - USUAL_SHARE, USUAL_SHARE / max(1, classes - 1))
    for _ in range(steps):
        joint = probabilities * carries[:, given].T
        posterior = joint / np.maximum(joint.sum(axis=1, keepdims=True), SMALLEST)
        counts = np.asarray((labels.T @ posterior).T)
        rows = counts.sum(axis=1)
        wrong = (rows - np.diag(counts) + USUAL_ROWS * USUAL_SHARE) / (rows + USUAL_ROWS)
        others = np.where(own, 0.0, counts + wrong[:, None] / max(1, classes - 1))
        carries = others / np.maximum(others.sum(axis=1, keepdims=True), SMALLEST) * wrong[:, None]
        carries[own] = 1 - wrong
    joint = probabilities * carries[:, given].T
    total = np.maximum(joint.sum(axis=1), SMALLEST)
    return joint / total[:, None], carries, float(np.log(total).mean())


@dataclass(frozen=True, slots=True)
class Mistakes:
    """What each row is, weighed over models of the mistakes: how many labels are wrong, what the wrong ones name, and how sharp the opinion is.

    posterior: (n_rows, n_classes), what each row is; would_show: (n_rows, n_classes), the probability of being wrong that each row
    would have under each label; fewest, most: labels that are wrong, each exceeded or fallen short of with `TAIL`, and `MISFIT` beyond.
    """

    posterior: Floats
    would_show: Floats
    fewest: float
    most: float

    @classmethod
    def behind(cls, logits: Floats, given: Ints, known: NDArray[np.bool_]) -> Mistakes:
        """The models differ in their temperature, believed to be near the one that opinions on right labels have; in the share of
        wrong labels, `BELIEVED_WRONG` in the mean; and in what a wrong label names. What the wrong labels of each class name is learnt from
        what the simple models say of all other rows, so that no row speaks for its own mistake, and costs `PRICE` a class.

        logits: (n_rows, n_classes); given: (n_rows,); known: (n_rows,), the rows that have a say and are judged.
        """
        rows = _some(known)
        simple = _weights(logits[rows], given[rows], None, WAYS)
        first = _averaged(logits[known], given[known], simple, None, WAYS)
        pairs = Pairs.of(first, given[known])
        place = np.cumsum(known)[rows] - 1
        ways = (*WAYS, LEARNT)
        weights = _weights(logits[rows], given[rows], pairs.without(first, given[known], place), ways)
        posterior, shown = np.zeros_like(logits), np.zeros_like(logits)
        own = pairs.without(first, given[known], np.arange(len(first)))
        posterior[known] = _averaged(logits[known], given[known], weights, own, ways)
        shown[known] = _would_show(logits[known], weights, pairs.share, ways)
        expected = float(len(first) - posterior[known][np.arange(len(first)), given[known]].sum())
        fewest, most = (expected * one for one in weights.spread())
        return cls(posterior, shown, fewest / MISFIT, min(most * MISFIT, float(len(first))))


@dataclass(frozen=True, slots=True)
class _Weights:
    """(n_temperatures, n_shares, n_ways): what each model counts, and how many of the rows' labels are wrong by it."""

    weight: Floats
    wrong: Floats

    def spread(self) -> tuple[float, float]:
        """How few and how many labels are wrong, each exceeded or fallen short of with `TAIL`, as shares of how many are in the mean."""
        order = np.argsort(self.wrong, axis=None)
        reached = np.cumsum(self.weight.ravel()[order])
        ends = np.minimum(np.searchsorted(reached, (TAIL, 1 - TAIL)), len(order) - 1)
        low, high = self.wrong.ravel()[order][ends] / max(float((self.weight * self.wrong).sum()), SMALLEST)
        return min(float(low), 1.0), max(float(high), 1.0)

    def models(self) -> Iterator[tuple[float, list[tuple[float, float, int]]]]:
        """Of each temperature the models that count: weight, share of wrong labels, way."""
        for row, temperature in enumerate(SHARPNESS):
            found = np.argwhere(self.weight[row] > NEGLIGIBLE).tolist()
            if found:
                yield (
                    float(temperature),
                    [(float(self.weight[row, share, way]), float(SHARES[share]), way) for share, way in found],
                )


@dataclass(frozen=True, slots=True)
class Pairs:
    """(n_classes, n_classes): how many rows of a class carry the label of another, by what was believed first."""

    counts: Floats

    @classmethod
    def of(cls, posterior: Floats, given: Ints) -> Pairs:
        """posterior: (n_rows, n_classes); given: (n_rows,)."""
        labels = sparse.csr_matrix((np.ones(len(given)), (np.arange(len(given)), given)), shape=posterior.shape)
        counts = np.asarray((labels.T @ posterior).T)
        np.fill_diagonal(counts, 0.0)
        return cls(counts)

    @property
    def share(self) -> Floats:
        """(n_classes, n_classes): of the wrong labels of a class, how many name which; one more is shared out evenly."""
        classes = len(self.counts)
        shares = (self.counts + 1 / max(1, classes - 1)) / (self.counts.sum(axis=1, keepdims=True) + 1)
        np.fill_diagonal(shares, 0.0)
        return np.asarray(shares)

    def without(self, posterior: Floats, given: Ints, rows: NDArray[np.intp]) -> Floats:
        """(len(rows), n_classes): the share that each row's label has of each class's wrong ones, without the row itself."""
        label, own = given[rows], posterior[rows]
        own[np.arange(len(rows)), label] = 0.0
        classes = len(self.counts)
        found = self.counts[:, label].T - own + 1 / max(1, classes - 1)
        found /= self.counts.sum(axis=1)[None] - own + 1
        found[np.arange(len(rows)), label] = 0.0
        return np.asarray(np.maximum(found, 0.0))


def _named(probabilities: Floats, given: Ints, pairs: Floats | None) -> tuple[Floats, list[Floats]]:
    """The chance that a row is what its label says, (n_rows,), and by what a wrong label names the chances of each class with that label,
    (n_rows, n_classes), 0 for the label itself. A confusable one names a class by its chance among the others (the opinion's).
    """
    place = np.arange(len(given))
    own = probabilities[place, given]
    even = probabilities / max(1, probabilities.shape[1] - 1)
    confusable = own[:, None] * probabilities / np.maximum(1 - probabilities, SMALLEST)
    named = [even, confusable, *([] if pairs is None else [probabilities * pairs])]
    for one in named:
        one[place, given] = 0.0
    return own, named


def _mixed(way: tuple[float, ...], named: Sequence[Floats]) -> Floats:
    parts = [part * one for part, one in zip(way, named, strict=False) if part]
    return np.asarray(np.sum(parts, axis=0))


def _weights(logits: Floats, given: Ints, pairs: Floats | None, ways: Sequence[tuple[float, ...]]) -> _Weights:
    """logits: (n_rows, n_classes); given: (n_rows,); pairs: (n_rows, n_classes), from Pairs.without."""

    def of_temperature(temperature: float) -> tuple[Floats, Floats]:
        own, named = _named(softmax(logits / temperature), given, pairs)
        sums = [one.sum(axis=1) for one in named]
        likely, wrong = np.zeros((len(SHARES), len(ways))), np.zeros((len(SHARES), len(ways)))
        for way, parts in enumerate(ways):
            mistaken = SHARES * _mixed(parts, sums)[:, None]
            whole = np.maximum(own[:, None] * (1 - SHARES) + mistaken, SMALLEST)
            likely[:, way], wrong[:, way] = np.log(whole).sum(axis=0), (mistaken / whole).sum(axis=0)
            likely[:, way] -= PRICE * logits.shape[1] * (way >= len(WAYS))
        return likely, wrong

    found = in_threads(of_temperature, SHARPNESS.tolist())
    likely, wrong = (np.array(one) for one in zip(*found, strict=True))
    likely -= (((np.log(SHARPNESS) - USUAL_TEMPERATURE) / SPREAD) ** 2 / 2)[:, None, None]
    # Beta(1, 1/BELIEVED_WRONG - 1), and the shares do not stand at equal distances.
    likely += ((1 / BELIEVED_WRONG - 2) * np.log1p(-SHARES) + np.log(np.gradient(SHARES)))[None, :, None]
    weight = np.exp(likely - likely.max())
    return _Weights(weight / weight.sum(), wrong)


def _averaged(
    logits: Floats, given: Ints, weights: _Weights, pairs: Floats | None, ways: Sequence[tuple[float, ...]]
) -> Floats:
    """(n_rows, n_classes): what each row is, by all models that count."""
    result, place = np.zeros_like(logits), np.arange(len(given))
    for temperature, models in weights.models():
        own, named = _named(softmax(logits / temperature), given, pairs)
        for weight, share, way in models:
            joint = share * _mixed(ways[way], named)
            joint[place, given] = (1 - share) * own
            result += weight * joint / np.maximum(joint.sum(axis=1, keepdims=True), SMALLEST)
    return np.asarray(result / np.maximum(result.sum(axis=1, keepdims=True), SMALLEST))


def _would_show(logits: Floats, weights: _Weights, pairs: Floats, ways: Sequence[tuple[float, ...]]) -> Floats:
    """(n_rows, n_classes): each row's probability of being wrong under each label, by all models that count."""
    result, counted = np.zeros_like(logits), 0.0
    for temperature, models in weights.models():
        opinion = softmax(logits / temperature)
        odds = opinion / np.maximum(1 - opinion, SMALLEST)
        confusable = opinion * (odds.sum(axis=1, keepdims=True) - odds)
        named = [(1 - opinion) / max(1, opinion.shape[1] - 1), confusable, opinion @ pairs]
        for weight, share, way in models:
            mistaken = share * _mixed(ways[way], named)
            result += weight * mistaken / np.maximum((1 - share) * opinion + mistaken, SMALLEST)
            counted += weight
    return np.asarray(result / max(counted, SMALLEST))

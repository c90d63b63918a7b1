"""How wrong labels explain what was given: by models of the mistakes that people make, beside an opinion of what each row is.

`Explained` fits one model of many numbers, how often a row of each class carries each label, by expectation maximization (after Dawid and
Skene 1979): quick, and good enough to teach by. `Mistakes` says how likely each label is wrong: it weighs a few simple models, each by how likely it
makes the labels, and gives no single one the last word (Bayesian model averaging; Hoeting et al. 1999).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from seedling.parallel.executor import in_threads
from seedling.stats.statistics import SMALLEST, Floats, Ints, fit_temperature, softmax

TEMPERATURES = np.exp(np.linspace(np.log(0.1), np.log(8), 17))
STEPS_TO_CHOOSE, STEPS = 20, 50  # of expectation maximization
ROWS_TO_CHOOSE = 5_000  # by which a temperature is chosen and models are weighed
USUAL_ROWS = 20.0  # the prior: so many rows of each class beforehand,
USUAL_SHARE = 0.05  # and of their labels this share is wrong
UNSURE = 8.0  # labeled rows a class with which a temperature e times as sharp as the plain one must gain a nat a row

BELIEVED_WRONG = 1 / 10  # of all labels, beforehand
SHARES = np.linspace(0.0, np.sqrt(0.6), 25) ** 2  # of wrong labels
MOST_OF_A_CLASS = 0.95  # of its labels are wrong
LOG_TEMPERATURE = np.log(1.1)  # of opinions that agree with right labels, in the mean of sets,
DEVIATION = 0.2  # and how far it varies between them
SCALES = np.exp(LOG_TEMPERATURE + np.linspace(-1.2, 0.8, 21))  # temperatures
PRICE = 1.0  # nats a class that what was learnt of single classes must gain
KEPT = 0.999  # of the models' weight
TAIL = 0.025  # of how many are wrong, to either side
CLEARLY = 3.0  # nats by which some wrong labels must be likelier than none, or there may be none
MISFIT = 1.15  # times as many or as few, as no model of mistakes is the true one
ROWS_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class Way:
    """How people err. Of the wrong labels some name any other class (`even`), some one that the row looks like (`confusable`), and some what others
    of their class name (`pairs`); by_class: whether each class has a share of wrong labels of its own.
    """

    even: float = 0.0
    confusable: float = 0.0
    pairs: float = 0.0
    by_class: bool = False

    @property
    def learnt(self) -> int:
        """How many numbers a class it has."""
        return (self.pairs > 0) + self.by_class


SIMPLE = (
    Way(even=1.0),
    Way(even=0.5, confusable=0.5),
    Way(confusable=1.0),
    Way(even=1.0, by_class=True),
    Way(confusable=1.0, by_class=True),
)
ALL = (*SIMPLE, Way(confusable=0.5, pairs=0.5), Way(confusable=0.5, pairs=0.5, by_class=True))


@dataclass(frozen=True, slots=True)
class Explained:
    """An opinion and the given labels, explained by wrong labels.

    temperature: the opinion's; posterior: (n_rows, n_classes), what each row is; carries: (n_classes, n_classes), of a class's rows, how many carry
    which label.
    """

    logits: Floats
    given: Ints
    temperature: float
    posterior: Floats
    carries: Floats

    @classmethod
    def by(cls, logits: Floats, given: Ints, known: NDArray[np.bool_]) -> Explained:
        """logits: (n_rows, n_classes); given: (n_rows,); known: (n_rows,), the rows that have a say in it."""
        temperature, posterior = fitting_temperature(logits, given, known), np.zeros_like(logits)
        posterior[known], carries, _ = _posterior(softmax(logits[known] / temperature), given[known], STEPS)
        return cls(logits, given, temperature, posterior, carries)

    @property
    def believed(self) -> Floats:
        """(n_rows,): the probability that the row is what its label says."""
        return np.asarray(self.posterior[np.arange(len(self.given)), self.given])


def fitting_temperature(logits: Floats, given: Ints, known: NDArray[np.bool_]) -> float:
    """The temperature under which the given labels are likeliest, when some may be wrong. The plain one, which takes all labels for right,
    is kept where few rows a class speak for another: there wrong labels and weak models look alike.

    logits: (n_rows, n_classes); given: (n_rows,); known: (n_rows,), the rows that have a say in it.
    """
    rows = _some(known)
    plain = fit_temperature(logits[rows], given[rows])
    price = (UNSURE * logits.shape[1] / len(rows)) ** 2

    def gain(temperature: float) -> float:
        _, _, likelihood = _posterior(softmax(logits[rows] / temperature), given[rows], STEPS_TO_CHOOSE)
        return float(likelihood - price * np.log(temperature / plain) ** 2)

    return float(TEMPERATURES[int(np.argmax(in_threads(gain, TEMPERATURES.tolist())))])


def sharpened(logits: Floats, given: Ints, known: NDArray[np.bool_]) -> Floats:
    """(n_rows, n_classes): the logarithms of an opinion's probabilities, at the temperature that fits the labels."""
    return np.asarray(np.log(np.maximum(softmax(logits / fitting_temperature(logits, given, known)), 1e-9)))


def _some(known: NDArray[np.bool_]) -> NDArray[np.intp]:
    """As many rows as models are chosen by, drawn, so that their order does not matter."""
    rows = np.flatnonzero(known)
    return np.sort(np.random.default_rng(0).permutation(rows)[:ROWS_TO_CHOOSE])


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
    """What each row is, weighed over models of the mistakes: how many labels are wrong, how people err, and how sharp the opinion is.

    posterior: (n_rows, n_classes), what each row is; would_show: (n_rows, n_classes), the probability of being wrong that each row
    would have under each label; fewest, most: labels that are wrong, each exceeded or fallen short of with `TAIL`, and `MISFIT` beyond.
    """

    posterior: Floats
    would_show: Floats
    fewest: float
    most: float

    @classmethod
    def behind(cls, opinion: Explained, known: NDArray[np.bool_]) -> Mistakes:
        """The models differ in their temperature, believed to be near the one that opinions on right labels have; in the share of
        wrong labels, `BELIEVED_WRONG` in the mean; and in their `Way`. How the classes' shares compare is taken from `opinion`; what the wrong
        labels of each class name is learnt from what the simple ways say of all other rows. Either costs `PRICE` a class.

        known: (n_rows,), the rows that have a say and are judged.
        """
        logits, given, some = opinion.logits[known], opinion.given[known], _some(np.ones(int(known.sum()), dtype=bool))
        rates = _compared(opinion.posterior[known], opinion.carries)
        simple = Weights.of(logits[some], given[some], None, rates, SIMPLE)
        first = _in_blocks(lambda mine: _averaged(logits[mine], given[mine], simple, None, rates), len(given))
        pairs = Pairs.of(first, given)
        weights = Weights.of(logits[some], given[some], pairs.without(first, given, some), rates, ALL)

        def judge(mine: NDArray[np.intp]) -> Floats:
            return _averaged(logits[mine], given[mine], weights, pairs.without(first, given, mine), rates)

        posterior, shown = np.zeros_like(opinion.logits), np.zeros_like(opinion.logits)
        judged = _in_blocks(judge, len(given))
        posterior[known] = judged
        shown[known] = _in_blocks(lambda mine: would_show(logits[mine], weights, pairs.share, rates), len(given))
        expected = float(len(given) - judged[np.arange(len(given)), given].sum())
        fewest, most = (expected * one for one in weights.ends())
        return cls(posterior, shown, fewest / MISFIT, min(most * MISFIT, float(len(given))))


def _compared(posterior: Floats, carries: Floats) -> Floats:
    """(n_classes,): each class's share of wrong labels over that of all rows."""
    wrong, rows = 1 - np.diag(carries), posterior.sum(axis=0)
    return np.asarray(wrong / max(float((wrong * rows).sum() / max(float(rows.sum()), SMALLEST)), SMALLEST))


def _in_blocks(work: Callable[[NDArray[np.intp]], Floats], rows: int) -> Floats:
    parts = [np.arange(first, min(first + ROWS_AT_ONCE, rows)) for first in range(0, rows, ROWS_AT_ONCE)]
    return np.concatenate([work(part) for part in parts])


@dataclass(frozen=True, slots=True)
class Weights:
    """(n_temperatures, n_shares, n_ways): what each model counts, and how many of the rows' labels are wrong by it."""

    weight: Floats
    wrong: Floats
    ways: tuple[Way, ...]
    may_be_none: bool

    @classmethod
    def of(cls, logits: Floats, given: Ints, pairs: Floats | None, rates: Floats, ways: tuple[Way, ...]) -> Weights:
        """logits: (n_rows, n_classes); given: (n_rows,); pairs: (n_rows, n_classes), from Pairs.without; rates: (n_classes,)."""

        def of_temperature(temperature: float) -> tuple[Floats, Floats]:
            own, named = _named(softmax(logits / temperature), given, pairs)
            likely, wrong = np.zeros((len(SHARES), len(ways))), np.zeros((len(SHARES), len(ways)))
            for place, way in enumerate(ways):
                mixed = _mixed(way, named)
                total = mixed.sum(axis=1)
                for at, share in enumerate(SHARES):
                    shares = _shares(way, float(share), rates)
                    mistaken = mixed @ shares if way.by_class else share * total
                    whole = np.maximum(own * (1 - shares[given]) + mistaken, SMALLEST)
                    likely[at, place], wrong[at, place] = np.log(whole).sum(), (mistaken / whole).sum()
                likely[:, place] -= PRICE * logits.shape[1] * way.learnt
            return likely, wrong

        found = in_threads(of_temperature, SCALES.tolist())
        likely, wrong = (np.array(one) for one in zip(*found, strict=True))
        likely -= (((np.log(SCALES) - LOG_TEMPERATURE) / DEVIATION) ** 2 / 2)[:, None, None]
        may_be_none = bool(likely[:, 0].max() > likely.max() - CLEARLY)
        # Beta(1, 1/BELIEVED_WRONG - 1), and the shares do not stand at equal distances.
        likely += ((1 / BELIEVED_WRONG - 2) * np.log1p(-SHARES) + np.log(np.gradient(SHARES)))[None, :, None]
        weight = np.exp(likely - likely.max()).ravel()
        order = np.argsort(-weight, kind="stable")
        reached = np.cumsum(weight[order]) / weight.sum()
        weight[order[np.searchsorted(reached, KEPT) + 1 :]] = 0.0
        return cls((weight / weight.sum()).reshape(likely.shape), wrong, ways, may_be_none)

    def ends(self) -> tuple[float, float]:
        """How few and how many labels are wrong, each exceeded or fallen short of with `TAIL`, as shares of how many are in the mean."""
        order = np.argsort(self.wrong, axis=None)
        reached = np.cumsum(self.weight.ravel()[order])
        ends = np.minimum(np.searchsorted(reached, (TAIL, 1 - TAIL)), len(order) - 1)
        low, high = self.wrong.ravel()[order][ends] / max(float((self.weight * self.wrong).sum()), SMALLEST)
        return 0.0 if self.may_be_none else min(float(low), 1.0), max(float(high), 1.0)

    def models(self) -> Iterator[tuple[float, list[tuple[float, float, Way]]]]:
        """Of each temperature the models that count: weight, share of wrong labels, way."""
        for row, temperature in enumerate(SCALES):
            found = np.argwhere(self.weight[row] > 0).tolist()
            if found:
                models = [(float(self.weight[row, at, way]), float(SHARES[at]), self.ways[way]) for at, way in found]
                yield float(temperature), models


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


def _others(values: Floats) -> Floats:
    """(n_rows, n_classes): the sum of each row's other values; at the largest one added up, not taken off, which would cancel."""
    place, largest = np.arange(len(values)), values.argmax(axis=1)
    rest = values.copy()
    rest[place, largest] = 0.0
    result = values.sum(axis=1, keepdims=True) - values
    result[place, largest] = rest.sum(axis=1)
    return np.asarray(np.maximum(result, 0.0))


def _named(probabilities: Floats, given: Ints, pairs: Floats | None) -> tuple[Floats, list[Floats]]:
    """The chance that a row is what its label says, (n_rows,), and by what a wrong label names the chances of each class with that label,
    (n_rows, n_classes), 0 for the label itself. A confusable one names a class by its chance among the others (the opinion's).
    """
    place = np.arange(len(given))
    own = probabilities[place, given]
    even = probabilities / max(1, probabilities.shape[1] - 1)
    confusable = probabilities * (own[:, None] / np.maximum(_others(probabilities), np.finfo(np.float64).tiny))
    named = [even, confusable, *([] if pairs is None else [probabilities * pairs])]
    for one in named:
        one[place, given] = 0.0
    return own, named


def _mixed(way: Way, named: Sequence[Floats]) -> Floats:
    parts = zip((way.even, way.confusable, way.pairs), named, strict=False)
    return np.asarray(np.sum([part * one for part, one in parts if part], axis=0))


def _shares(way: Way, share: float, rates: Floats) -> Floats:
    """(n_classes,): of each class's labels, how many are wrong."""
    return np.minimum(share * rates, MOST_OF_A_CLASS) if way.by_class else np.full(len(rates), share)


def _averaged(logits: Floats, given: Ints, weights: Weights, pairs: Floats | None, rates: Floats) -> Floats:
    """(n_rows, n_classes): what each row is, by all models that count."""
    result, place = np.zeros_like(logits), np.arange(len(given))
    for temperature, models in weights.models():
        own, named = _named(softmax(logits / temperature), given, pairs)
        for weight, share, way in models:
            shares = _shares(way, share, rates)
            joint = _mixed(way, named) * shares
            joint[place, given] = (1 - shares[given]) * own
            result += weight * joint / np.maximum(joint.sum(axis=1, keepdims=True), SMALLEST)
    return np.asarray(result / np.maximum(result.sum(axis=1, keepdims=True), SMALLEST))


def would_show(logits: Floats, weights: Weights, pairs: Floats, rates: Floats) -> Floats:
    """(n_rows, n_classes): each row's probability of being wrong under each label, by all models that count."""
    result, even = np.zeros_like(logits), (1 - np.eye(logits.shape[1])) / max(1, logits.shape[1] - 1)
    for temperature, models in weights.models():
        opinion = softmax(logits / temperature)
        odds = opinion / np.maximum(_others(opinion), np.finfo(np.float64).tiny)
        for weight, share, way in models:
            shares = _shares(way, share, rates)
            mistaken = way.confusable * opinion * _others(odds * shares)
            for part, names in ((way.even, even), (way.pairs, pairs)):
                if part:
                    mistaken += part * ((opinion * shares) @ names)
            result += weight * mistaken / np.maximum((1 - shares) * opinion + mistaken, SMALLEST)
    return result

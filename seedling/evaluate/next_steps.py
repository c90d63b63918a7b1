"""What to do next: the gain that each way to spend half an hour may be expected to bring, from how fast errors fall with labels.

Errors are taken to fall as labels^-b (Hestness et al. 2017). Rows whose own label is wrong count as errors that no label mends, so their
share is taken off before b is fitted. Whether the advice is worth following is measured: benchmarks/advice.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from seedling.evaluate.slices import holm
from seedling.stats.randomness import generator
from seedling.stats.statistics import Estimate, Floats

MINUTES, A_MINUTE = 30, 20  # a person's half hour, in rows where validate says nothing else
DRAWS = 2_000
FLATTEST, STEEPEST = 0.05, 1.0  # exponents that are believed
CONFIDENCE = 0.8  # of a gain: a curve of a few points is rough
TIMES = (2, 4)
FEW = 3  # classes and slices that are named
KEY_OF = {"augment": "augment.augmentations_per_row", "synthesize": "synthesize.mixup"}  # that switches a step off
NEARLY_ALL = 0.95  # of the wrong labels: to look for the rest is not worth the minutes
WORTH_SAYING = 0.0005  # of accuracy
FEWEST_LABELS = 10  # of a source or a rule, that say anything of it
SURE = 0.05  # chance of blaming any where none is worse


@dataclass(frozen=True)
class LabelsFrom:
    """Judged training labels of one site, folder or table (kind `source`), or of one rule (kind `rule`). wrong: how many are expected to be."""

    kind: str
    name: str
    rows: int
    wrong: float


@dataclass(frozen=True)
class Curve:
    """How fast errors fall: draws of the exponent and of the share of errors, (DRAWS,) each, and how many labels there are."""

    exponents: Floats
    errors: Floats
    labels: int

    @classmethod
    def of(cls, found: Mapping[str, Any] | None, error: float, rows: float, noise: float, seed: int) -> Curve | None:
        """Draws from what is known: each point's errors from their posterior, b from them by least squares on the logarithms.

        found: what train measured; error, rows: the share of errors now and the effective rows that it was measured on; noise: the share of wrong
        labels among the rows that train judged by.
        """
        if found is None or rows <= 0:
            return None
        rng = generator(seed, "evaluate", "next steps")
        many, judged = np.log([one["labels"] for one in found["points"]]), found["rows"]
        wrong = judged * (1 - np.array([one["accuracy"]["value"] for one in found["points"]]))
        shares = rng.beta(wrong + 0.5, judged - wrong + 0.5, size=(DRAWS, len(many)))
        logs = np.log(np.maximum(shares - noise, 0.5 / judged))
        away = many - many.mean()
        exponents = np.clip(-(logs * away).sum(axis=1) / (away**2).sum(), FLATTEST, STEEPEST)
        return cls(exponents, rng.beta(error * rows + 0.5, rows - error * rows + 0.5, size=DRAWS), int(found["labels"]))

    def gain(self, times: float, share: float = 1.0) -> Estimate:
        """Of accuracy, with so many times as many labels; share: of the errors that fall."""
        gains = self.errors * share * (1 - times**-self.exponents)
        tail = (1 - CONFIDENCE) / 2
        low, value, high = np.quantile(gains, [tail, 0.5, 1 - tail])
        return Estimate(float(value), float(low), float(high))


def extrapolated(curve: Curve | None, accuracy: float) -> list[dict[str, Any]]:
    """The accuracy that twice and four times as many labels may be expected to bring."""
    found: list[dict[str, Any]] = []
    if curve is None:
        return found
    for times in TIMES:
        gain = curve.gain(times)
        reached = Estimate(*(min(1.0, accuracy + one) for one in (gain.value, gain.low, gain.high)))
        found.append({"times": times, "labels": times * curve.labels, "accuracy": reached.rounded()})
    return found


def next_steps(
    curve: Curve | None,
    *,
    rows: Mapping[str, int],
    doubt: Mapping[str, Any],
    errors: Mapping[str, int],
    labels: Mapping[str, int],
    step_contributions: Sequence[Mapping[str, Any]],
    rounds: Sequence[Mapping[str, Any]],
    slices: Sequence[Mapping[str, Any]],
    queue: bool,
    used: Collection[str],
    labels_from: Sequence[LabelsFrom] = (),
    unlabeled: int = 0,
) -> list[dict[str, Any]]:
    """Advice, the largest expected gain first: what, how, minutes, and the gain of accuracy with its 80 % interval (None where nothing
    tells).

    rows: kept ones by split; doubt: what validate says of the labels; errors, labels: by class, wrong test rows and training labels; contributed:
    train's steps; rounds: with `decision`; slices: with `worse`; queue: whether the pool's rows were put into an order to label them in; used: what
    the chosen model learnt from; labels_from: the judged labels by source and by rule; unlabeled: held-out rows that scrape rejected for want of a label.
    """
    a_minute = float(doubt.get("items_per_minute", A_MINUTE))
    at_most = max(1, round(MINUTES * a_minute))
    found = [
        *_label_more(curve, rows, at_most, a_minute, queue, unlabeled),
        *_check_labels(curve, doubt),
        *_fix_sources(curve, labels_from, a_minute),
        *_collect(errors, labels, at_most, a_minute),
        *_leave_out(step_contributions, rounds, used),
        *_look_at(slices),
    ]
    told = [one for one in found if one["gain"] is None or one["gain"]["value"] >= WORTH_SAYING]
    return sorted(told, key=lambda one: -(one["gain"] or {"value": 0.0})["value"])


def _advice(what: str, text: str, how: str, takes: float | None, gain: Estimate | None) -> dict[str, Any]:
    minutes = None if takes is None else max(1, round(takes))
    return {
        "what": what,
        "text": text,
        "how": how,
        "minutes": minutes,
        "gain": None if gain is None else gain.rounded(),
    }


def _label_more(
    curve: Curve | None, rows: Mapping[str, int], at_most: int, a_minute: float, queue: bool, unlabeled: int
) -> list[dict[str, Any]]:
    if curve is None:
        return []
    many = min(at_most, rows.get("pool", 0) or at_most, curve.labels)
    times = (curve.labels + many) / curve.labels
    if rows.get("pool", 0):
        how = "Give them their labels in data/."
        if queue:
            how = "generations/pseudo_label/1/queue.csv lists the pool's rows that teach most, best first."
        return [_advice("label", f"Label {many:,} rows of the pool", how, many / a_minute, curve.gain(times))]
    how = "No row is left in the pool: add rows to data/."
    if unlabeled:
        how = (
            f"{unlabeled:,} rows of the validation or test split have no label and were rejected: give them their labels in data/, or put them into "
            "the pool. Then add rows."
        )
    text = f"Collect and label {many:,} further rows"
    return [_advice("collect", text, how, many / a_minute, curve.gain(times))]


def _check_labels(curve: Curve | None, doubt: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Wrong labels cost as if a share of all were missing: a share `noise` of them leaves (1 - noise)^2 of what they teach (after Angluin
    and Laird 1988, for many classes).
    """
    wrong, judged = doubt.get("expected", 0.0), doubt.get("judged", 0)
    if curve is None or wrong < 1 or not judged:
        return []
    able = [one for one in doubt["budget"] if one["minutes"] <= MINUTES]
    if not able:
        return []
    nearly_all = [one for one in able if one["share"]["value"] >= NEARLY_ALL]
    spent = nearly_all[0] if nearly_all else able[-1]
    mended = wrong * spent["share"]["value"]
    times = ((1 - (wrong - mended) / judged) / (1 - wrong / judged)) ** 2
    how = "reports/data.html shows them, the most doubtful first; reports/label_issues.csv lists them. If most of the first ten are right, stop: of few rows or of hard classes a model cannot tell hard rows from wrongly labeled ones."
    text = f"Look at the {spent['rows']:,} most doubtful labels"
    return [_advice("check_labels", text, how, spent["rows"] / doubt["items_per_minute"], curve.gain(times))]


def _fix_sources(curve: Curve | None, labels_from: Sequence[LabelsFrom], a_minute: float) -> list[dict[str, Any]]:
    """Sources and rules whose labels are surely wrong more often than the others': by Fisher's exact test, one-sided, with Holm's correction."""
    rows = sum(one.rows for one in labels_from if one.kind == "source")
    wrong = sum(one.wrong for one in labels_from if one.kind == "source")
    of_sources = {
        (one.rows, one.wrong) for one in labels_from if one.kind == "source"
    }  # a rule that speaks of just these is not named too
    able = [
        one
        for one in labels_from
        if FEWEST_LABELS <= one.rows < rows and (one.kind == "source" or (one.rows, one.wrong) not in of_sources)
    ]
    chances = [
        fisher_exact(
            [
                [round(one.wrong), one.rows - round(one.wrong)],
                [round(wrong - one.wrong), rows - one.rows - round(wrong - one.wrong)],
            ],
            alternative="greater",
        ).pvalue
        for one in able
    ]
    found = []
    for one, sure in zip(able, holm(chances, SURE), strict=True):
        if not sure:
            continue
        times = ((1 - (wrong - one.wrong) / rows) / max(1 - wrong / rows, 0.01)) ** 2
        others = f"{wrong - one.wrong:.0f}" if round(wrong - one.wrong) else "none"
        how = f"{one.wrong:.0f} of its {one.rows:,} labels are probably wrong, and {others} of the other {rows - one.rows:,}: "
        how += "mend where they come from, or those rows; reports/label_issues.csv lists them."
        text = f"Fix the {one.kind} {one.name or 'that is the top of data/'}"
        found.append(_advice("fix_source", text, how, one.wrong / a_minute, curve.gain(times) if curve else None))
    return sorted(found, key=lambda one: -(one["gain"] or {"value": 0.0})["value"])[:FEW]


def _collect(
    errors: Mapping[str, int], labels: Mapping[str, int], at_most: int, a_minute: float
) -> list[dict[str, Any]]:
    """The class of which most is missed, if it stands out. Without a number: rows of one class alone take from the others, too."""
    total, usual = sum(errors.values()), sum(labels.values())
    if len(errors) < 3 or not total:
        return []
    name = min(errors, key=lambda one: (-errors[one], one))
    if errors[name] < 2 or errors[name] * usual <= 2 * total * labels.get(name, 0):
        return []
    many = min(labels.get(name, 0) or at_most, at_most)
    how = f"{errors[name]} of the {total} errors are rows of this class, more than twice its share of the labels."
    return [_advice("collect_class", f"Label {many:,} more rows of “{name}”", how, many / a_minute, None)]


def _leave_out(
    step_contributions: Sequence[Mapping[str, Any]], rounds: Sequence[Mapping[str, Any]], used: Collection[str]
) -> list[dict[str, Any]]:
    """Steps that surely cost accuracy, where the chosen model learnt from them all the same."""
    found = []
    for one in step_contributions:
        if one["step"] in KEY_OF and one["step"] in used and one["difference"]["high"] < 0:
            loss = Estimate(*(-one["difference"][end] for end in ("value", "high", "low")))
            how = f"Set {KEY_OF[one['step']]}: 0 in params.yaml; the vote leaves it out where it can already."
            found.append(_advice("leave_out", f"Leave out {one['step']}", how, None, loss))
    if any(one["decision"] == "rejected" for one in rounds):
        how = "Set pseudo_label.rounds lower in params.yaml: a round was rolled back, its time is spent for nothing."
        found.append(_advice("stop", "Stop pseudo-labeling earlier", how, None, None))
    return found


def _look_at(slices: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    worse = [one for one in slices if one["worse"]]
    return [
        _advice(
            "slice",
            f"Look at rows with {one['column']} {one['value']}",
            f"The model is surely worse there: {100 * one['accuracy']['value']:.0f} % of {one['rows']} rows right.",
            None,
            None,
        )
        for one in sorted(worse, key=lambda one: one["accuracy"]["value"])[:FEW]
    ]


def errors_by_class(right: NDArray[np.bool_], truth: NDArray[np.int64], classes: Sequence[str]) -> dict[str, int]:
    """How many rows of each class are wrong."""
    counts = np.bincount(truth[~right], minlength=len(classes))
    return {name: int(count) for name, count in zip(classes, counts, strict=True)}

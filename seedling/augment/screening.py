"""`augment.policy: auto`: which operations, how strong and how many children help this data, by cross-validation on its own training folds.

Learners of round 0 are taught each fold's other rows with and without the children of an operation, and asked about the fold: a paired comparison on
the same rows. Operations go through successive halving (Jamieson and Talwalkar 2016): all of them with one child a row and logistic regression, the better
third at other strengths, and then what is left together, beside sets that suit many data, by all learners that train would use. What wins is compared
once more on other folds, and kept where it helps there too, so the answer may be none. No rule says that a digit must not be flipped; the comparison does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.augment import catalog, sentences
from seedling.augment.catalog import CannotChange
from seedling.augment.makers import Maker, Resources, maker_of, steps_of
from seedling.augment.teaching import QUICK_LEARNER, Children, Parents, probabilities_of, taught_and_asked
from seedling.config.params import WorkspaceConfig
from seedling.errors import InputError
from seedling.models.training import FitContext
from seedling.parallel.executor import in_threads
from seedling.progress import Progress
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import Difference, Floats, Ints, log_loss_of_rows, paired_difference

ROWS = {"quick": 150, "normal": 400, "thorough": 2_000}  # that judge, and are changed
KEPT_SHARE, AT_LEAST = 3, 6  # a third of the operations goes on, but not fewer than these
TOGETHER = 0.5  # the chance of each operation where several are kept
MOST_TOGETHER = (3, 8)
RATIOS = (1, 2, 5)  # children a row
STEPS = {
    "quick": 0,
    "normal": 120,
    "thorough": 600,
}  # of the network, which is one of the learners where images come without an encoder
PROBABLY_HELPS, MAY_HELP = (
    0.2,
    0.4,
)  # probability of being worse, below; sets that suit many data have that on their side
DRAWS = 2_000


@dataclass(frozen=True, slots=True)
class Tried:
    """One policy and what it did. policy: as params.yaml would have it; accuracy, log_loss: with its children less without, on the same rows;
    label_changes: the share of children that models which never saw their parent no longer take for its label, of parents that they do.
    """

    name: str
    policy: list[Any]
    children: int
    accuracy: Difference
    log_loss: Difference
    label_changes: float

    def as_json(self, kept: bool) -> dict[str, Any]:
        """As the manifest has it."""
        return {
            "name": self.name,
            "children": self.children,
            "accuracy": self.accuracy.rounded(),
            "log_loss": self.log_loss.rounded(),
            "label_changes": round(self.label_changes, 6),
            "kept": kept,
        }


@dataclass(frozen=True, slots=True)
class Screening:
    """What was found. policy: as params.yaml would have it, empty where nothing helps; children: a row, 0 where nothing helps; confirmed: what won,
    compared once more on folds dealt anew and with other children.
    """

    policy: list[Any]
    children: int
    rows: int
    confirmed: Tried
    tried: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """As the manifest has it."""
        confirmed = self.confirmed.as_json(kept=bool(self.policy))
        return {"rows": self.rows, "policy": self.policy, "confirmed": confirmed, "tried": self.tried}


class CannotScreen(ValueError):
    """There are too few rows or folds to tell what helps."""


def screen(
    parents: Parents, weight: float, facts: WorkspaceConfig, resources: Resources, progress: Progress
) -> Screening:
    """What helps these rows. parents: drawn, with features; weight: of a child, beside its parent's.

    Raises CannotScreen with fewer than two folds, or twenty rows in them.
    """
    judged = np.flatnonzero(parents.fold >= 0)
    if len(np.unique(parents.fold[judged])) < 2 or len(judged) < 20:
        raise CannotScreen("fewer than twenty labeled rows lie in at least two folds")
    parents.features.transform(parents.payloads[:1])  # an encoder is loaded once, and not by several threads
    trial = _Trial(parents, judged, weight, facts, resources, progress)
    graded, names = _names(facts, resources, parents)
    first = trial.run([(name, [name], 1) for name in names])
    better = sorted(first, key=_at_worst)[: max(AT_LEAST, len(names) // KEPT_SHARE)]
    strengths = (catalog if facts.modality == "image" else sentences).WEAK_AND_STRONG
    second = trial.run(
        [(f"{one.name} {some:g}", [{one.name: some}], 1) for one in better for some in strengths if one.name in graded]
    )
    best = [min([one, *(two for two in second if one.name in two.policy[0])], key=_at_worst) for one in better]
    helps = sorted((one for one in best if one.log_loss.probability_worse < PROBABLY_HELPS), key=_at_worst)
    sets = sorted({min(many, len(helps)) for many in MOST_TOGETHER} - {0, 1})
    wanted = [(f"the best {many}", _together([one.policy[0] for one in helps[:many]], facts), 1) for many in sets]
    if not wanted:
        wanted = [(one.name, one.policy, 1) for one in helps]
    wanted += [(name, policy, 1) for name, policy in _sets(facts)]
    learners = _learners(parents, facts)
    finals = _Trial(parents, judged, weight, facts, resources, progress, learners)
    third = finals.run(wanted)
    presets = {name for name, _ in _sets(facts)}
    searched = [one for one in third if one.name not in presets]
    preset = [one for one in third if one.name in presets]
    rivals = [min(some, key=_mean) for some in (searched, preset) if some]
    fourth = finals.run(
        [(f"{one.name}, {many} children", one.policy, many) for one in rivals for many in RATIOS if many > 1]
    )
    rivals = [min([one, *(more for more in fourth if more.policy == one.policy)], key=_mean) for one in rivals]
    # What won among so many owes something to these folds and these children: both are asked again with others.
    again = _Trial(parents.dealt_anew(facts.seed), judged, weight, facts, resources, progress, learners, draw="again")
    fifth = again.run([(one.name, one.policy, one.children) for one in rivals])
    helped = [
        one
        for one in fifth
        if one.log_loss.probability_worse < (MAY_HELP if one.policy == rivals[-1].policy else PROBABLY_HELPS)
    ]
    confirmed = min(helped or fifth, key=_mean)
    winner = rivals[fifth.index(confirmed)]
    chosen = confirmed if helped else None
    part = {*_named(chosen)} if chosen else set()
    rows = [
        one.as_json(kept=one.children == 1 and one in best and bool(part & {*_named(one)})) for one in [*first, *second]
    ]
    rows += [one.as_json(kept=chosen is not None and one is winner) for one in [*third, *fourth]]
    policy = chosen.policy if chosen else []
    return Screening(policy, chosen.children if chosen else 0, len(judged), confirmed, rows)


def _at_worst(one: Tried) -> float:
    """The upper end of the log-loss's interval: what changes much on few rows is not taken for what helps."""
    return one.log_loss.high


def _mean(one: Tried) -> float:
    return one.log_loss.value


def _named(one: Tried) -> list[str]:
    return [name for entry in one.policy for name in ([entry] if isinstance(entry, str) else entry)]


def _names(facts: WorkspaceConfig, resources: Resources, parents: Parents) -> tuple[set[str], list[str]]:
    """The operations that have a strength, and all; of the user's functions those that make a child: others may find objects, or help."""
    own = [one for one in resources.own if _makes_children(one, facts, resources, parents.payloads[0])]
    if facts.modality == "image":
        graded = {name for name, one in catalog.OPERATIONS.items() if one.graded}
        return graded, [*catalog.OPERATIONS, *own]
    known = [one for one in sentences.OPERATIONS if one != "synonym" or resources.context.near]
    return {*known} - {"case"}, [*known, *own]


def _makes_children(name: str, facts: WorkspaceConfig, resources: Resources, payload: Any) -> bool:
    try:
        maker_of(steps_of([name], facts, resources.own), facts, resources)(payload, 0)
    except (InputError, CannotChange):
        return False
    return True


def _sets(facts: WorkspaceConfig) -> list[tuple[str, list[Any]]]:
    """Sets of operations that suit many data: each alone may do too little to be seen."""
    usual = [{one.name: dict(one.arguments)} for one in steps_of(None, facts, {})]
    if facts.modality == "text":
        return [("usual", usual)]
    return [("usual", usual), *((name, [*some]) for name, some in catalog.SETS.items())]


def _learners(parents: Parents, facts: WorkspaceConfig) -> tuple[str, ...]:
    network = parents.inputs.images is not None and facts.modality == "image" and STEPS[facts.effort] > 0
    return (QUICK_LEARNER, "network") if network else (QUICK_LEARNER,)


def _together(policies: Sequence[Any], facts: WorkspaceConfig) -> list[Any]:
    """Several operations: images go through each with a chance of a half, a text through one of them."""
    if facts.modality == "text":
        return list(policies)
    order = list(catalog.OPERATIONS)
    found: list[Any] = []
    replaced = False
    for one in policies:
        ((name, given),) = one.items() if isinstance(one, dict) else [(one, None)]
        if name in catalog.REPLACING and replaced:  # what is left of an image twice is nothing
            continue
        replaced |= name in catalog.REPLACING
        if name in catalog.OPERATIONS:
            found.append({name: {**({} if given is None else {"strength": given}), "p": TOGETHER}})
        else:
            found.append(one)
    return sorted(found, key=lambda one: order.index(next(iter(one))) if isinstance(one, dict) else len(order))


class _Trial:
    """The rows without children, and what children change."""

    def __init__(
        self,
        parents: Parents,
        judged: NDArray[np.intp],
        weight: float,
        facts: WorkspaceConfig,
        resources: Resources,
        progress: Progress,
        learners: tuple[str, ...] = (QUICK_LEARNER,),
        draw: str = "",
    ) -> None:
        self.parents, self.judged, self.weight, self.facts = parents, judged, weight, facts
        self.resources, self._progress, self._draw = resources, progress, draw
        self._truth: Ints = parents.labels[judged]
        self._groups = parents.groups[judged]
        self._setting = FitContext(parents.classes, facts.seed, STEPS[facts.effort] or 1)
        asked = in_threads(lambda name: taught_and_asked(parents, judged, None, self._setting, name), list(learners))
        self._without = {name: said for name, (said, _) in zip(learners, asked, strict=True)}
        self._models = asked[0][1]
        self._done = self._total = 0

    def run(self, wanted: Sequence[tuple[str, list[Any], int]]) -> list[Tried]:
        """Each policy's comparison with no children; as many at a time as there are cores."""
        self._total += len(wanted)
        return in_threads(self._one, list(wanted))

    def _one(self, wanted: tuple[str, list[Any], int]) -> Tried:
        name, policy, many = wanted
        maker = maker_of(steps_of(policy, self.facts, self.resources.own), self.facts, self.resources)
        children = self._children(maker, many)
        right, loss = np.zeros((2, len(self._truth))), np.zeros((2, len(self._truth)))
        for learner, before in self._without.items():
            after, _ = taught_and_asked(self.parents, self.judged, children, self._setting, learner)
            right += np.stack([said.argmax(axis=1) == self._truth for said in (before, after)]) / len(self._without)
            loss += np.stack([log_loss_of_rows(said, self._truth) for said in (before, after)]) / len(self._without)
        rng = np.random.default_rng(derived_seed(self.facts.seed, "screening", name))
        accuracy = paired_difference(
            right[0], right[1], self._groups, larger_is_better=True, draws=DRAWS, rng=rng, wrong=1 / len(self._without)
        )
        log_loss = paired_difference(loss[0], loss[1], self._groups, larger_is_better=False, draws=DRAWS, rng=rng)
        self._done += 1
        self._progress("try operations", self._done, self._total)
        return Tried(name, policy, many, accuracy, log_loss, self._label_changes(children))

    def _children(self, maker: Maker, many: int) -> Children:
        payloads, of = [], []
        for row, (parent, payload) in enumerate(zip(self.parents.ids, self.parents.payloads, strict=True)):
            read = maker.read(payload)
            for number in range(many):
                try:
                    child, _, _ = maker.make(
                        read, derived_seed(self.facts.seed, "screening", self._draw, parent, number)
                    )
                except CannotChange:
                    continue
                payloads.append(child)
                of.append(row)
        return Children(self.parents.features.transform(payloads), np.array(of, dtype=np.intp), self.weight)

    def _label_changes(self, children: Children) -> float:
        """By the models without children, each asked about the children of rows that it did not see."""
        of, without = children.of, self._without[QUICK_LEARNER]
        place = np.full(len(self.parents.ids), -1, dtype=np.intp)
        place[self.judged] = np.arange(len(self.judged))
        right = np.zeros(len(of), dtype=bool)
        same = np.zeros(len(of), dtype=bool)
        for fold, model in self._models.items():
            mine = np.flatnonzero(self.parents.fold[of] == fold)
            if len(mine):
                said: Floats = probabilities_of(model, children.inputs.take(mine))
                truth = self.parents.labels[of[mine]]
                right[mine] = without[place[of[mine]]].argmax(axis=1) == truth
                same[mine] = said.argmax(axis=1) == truth
        return float(1 - same[right].mean()) if right.any() else 0.0

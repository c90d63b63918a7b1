"""Who goes where: a test split where none is given, and folds; by class, by near-duplicate group, by seed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from seedling.stats.randomness import derived_seed

LARGE = 200  # groups: from here on a class is dealt by its groups' names alone, so a row's place outlives rows to come


def shuffled_groups(labels: Sequence[str], groups: Sequence[str], seed: int, purpose: str) -> dict[str, list[str]]:
    """Class → its groups in an order that depends on seed, purpose and the group's name alone.

    A group that holds several classes counts for its commonest.
    """
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for label, group in zip(labels, groups, strict=True):
        votes[group][label] += 1
    of_class: dict[str, list[str]] = defaultdict(list)
    for group, counts in votes.items():
        of_class[min(counts, key=lambda label: (-counts[label], label))].append(group)
    return {
        label: sorted(of_class[label], key=lambda group: (derived_seed(seed, purpose, group), group))
        for label in sorted(of_class)
    }


def assign_folds(labels: Sequence[str], groups: Sequence[str], folds: int, seed: int) -> dict[str, int]:
    """Group → fold: each class's groups are dealt out in turn, each class beginning where the last one stopped.

    So a class of two groups or more of its own stands in at least two folds, and every model has seen it; the only group of
    a class gets no fold, as a model that does not see it could not know the class.
    A LARGE class's groups go where their names' hashes say, nearly evenly, and stay there whatever comes later.
    """
    fold_of: dict[str, int] = {}
    turn = 0
    for of_class in shuffled_groups(labels, groups, seed, "fold").values():
        if len(of_class) == 1:
            continue
        if len(of_class) >= LARGE:
            fold_of |= {group: derived_seed(seed, "fold of a large class", group) % folds for group in of_class}
            continue
        for group in of_class:
            fold_of[group] = turn % folds
            turn += 1
    return fold_of


def carve_test(
    labels: Sequence[str],
    groups: Sequence[str],
    share: float,
    seed: int,
    stay: int = 2,
    by_source: Collection[str] = (),
) -> set[str]:
    """The groups of a stratified test split: the given share of each class's rows, rounded down.

    At least `stay` groups of each class stay; near-duplicates that hold several classes all do. by_source: groups that a source made, which may
    well hold several classes; they are dealt first, each where all of its classes have room. Of a LARGE class's groups each
    goes with a chance of `share`, drawn from its name, so it stays in the test split when rows come later.
    """
    sizes: Mapping[str, int] = Counter(groups)
    mixed = {
        group
        for group, many in Counter(group for _, group in set(zip(labels, groups, strict=True))).items()
        if many > 1
    }
    chosen = _of_sources(labels, groups, share, seed, stay, by_source)
    mixed |= {*by_source}
    for of_class in shuffled_groups(labels, groups, seed, "test").values():
        if len(of_class) >= LARGE:
            chosen |= {one for one in of_class if one not in mixed and derived_seed(seed, "test", one) < share * 2**63}
            continue
        room = int(sum(sizes[group] for group in of_class) * share)
        for group in [one for one in of_class if one not in mixed][stay:]:
            if sizes[group] <= room:
                chosen.add(group)
                room -= sizes[group]
    return chosen


def _of_sources(
    labels: Sequence[str], groups: Sequence[str], share: float, seed: int, stay: int, by_source: Collection[str]
) -> set[str]:
    """Of the groups that sources made those whose rows fit into the share of every class that they hold, in an order by their names."""
    held: dict[str, Counter[str]] = {group: Counter() for group in by_source}
    left: dict[str, set[str]] = {}
    rows = Counter(labels)
    for label, group in zip(labels, groups, strict=True):
        left.setdefault(label, set()).add(group)
        if group in held:
            held[group][label] += 1
    room = {label: many * share for label, many in rows.items()}
    chosen: set[str] = set()
    for group in sorted(held, key=lambda one: (derived_seed(seed, "test", one), one)):
        counts = held[group]
        if all(many <= room[label] and len(left[label]) > stay for label, many in counts.items()):
            chosen.add(group)
            for label, many in counts.items():
                room[label] -= many
                left[label].discard(group)
    return chosen

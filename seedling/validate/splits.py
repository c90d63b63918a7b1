"""Assign test split and folds, stratified by class. Groups stay whole, and the seed and the groups' names decide."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from seedling.stats.randomness import derived_seed

LARGE_CLASS_GROUPS = 200  # from here on a hash of each group's name decides, so later rows do not move earlier ones


def shuffled_groups(labels: Sequence[str], groups: Sequence[str], seed: int, purpose: str) -> dict[str, list[str]]:
    """Class → its groups in an order that depends only on the seed, the purpose and each group's name.

    A group with several classes counts for its most common class.
    """
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for label, group in zip(labels, groups, strict=True):
        votes[group][label] += 1
    groups_by_class: dict[str, list[str]] = defaultdict(list)
    for group, counts in votes.items():
        groups_by_class[min(counts, key=lambda label: (-counts[label], label))].append(group)
    return {
        label: sorted(groups_by_class[label], key=lambda group: (derived_seed(seed, purpose, group), group))
        for label in sorted(groups_by_class)
    }


def assign_folds(labels: Sequence[str], groups: Sequence[str], folds: int, seed: int) -> dict[str, int]:
    """Group → fold: the groups of each class are assigned in turn, starting where the previous class stopped.

    A class with at least two groups is therefore in at least two folds, so that every model sees it. The only group of
    a class gets no fold, because a model that does not see it could not know the class. In a class with at least
    `LARGE_CLASS_GROUPS` groups, a hash of each group's name decides; the folds are nearly even and later rows do not
    change them.
    """
    fold_by_group: dict[str, int] = {}
    turn = 0
    for class_groups in shuffled_groups(labels, groups, seed, "fold").values():
        if len(class_groups) == 1:
            continue
        if len(class_groups) >= LARGE_CLASS_GROUPS:
            fold_by_group |= {
                group: derived_seed(seed, "fold of a large class", group) % folds for group in class_groups
            }
            continue
        for group in class_groups:
            fold_by_group[group] = turn % folds
            turn += 1
    return fold_by_group


def carve_test(
    labels: Sequence[str],
    groups: Sequence[str],
    share: float,
    seed: int,
    min_remaining: int = 2,
    by_source: Collection[str] = (),
) -> set[str]:
    """Choose the groups of a stratified test split: the given share of each class's rows, rounded down.

    At least `min_remaining` groups of each class remain in training, and so do all near-duplicates with several
    classes. In a class with at least `LARGE_CLASS_GROUPS` groups, each group is chosen with the probability `share`,
    drawn from its name, so that it stays in the test split when rows are added.

    by_source: groups that a source defines, which may contain several classes. They are chosen first, each if all of
    its classes have room.
    """
    sizes: Mapping[str, int] = Counter(groups)
    class_counts = Counter(group for _, group in set(zip(labels, groups, strict=True)))
    excluded = {group for group, classes in class_counts.items() if classes > 1} | {*by_source}
    chosen = _choose_source_groups(labels, groups, share, seed, min_remaining, by_source)
    for class_groups in shuffled_groups(labels, groups, seed, "test").values():
        candidates = [group for group in class_groups if group not in excluded]
        if len(class_groups) >= LARGE_CLASS_GROUPS:
            chosen |= {group for group in candidates if derived_seed(seed, "test", group) < share * 2**63}
            continue
        room = int(sum(sizes[group] for group in class_groups) * share)
        for group in candidates[min_remaining:]:
            if sizes[group] <= room:
                chosen.add(group)
                room -= sizes[group]
    return chosen


def _choose_source_groups(
    labels: Sequence[str],
    groups: Sequence[str],
    share: float,
    seed: int,
    min_remaining: int,
    by_source: Collection[str],
) -> set[str]:
    """Choose source groups whose rows fit into the share of every class they contain, in the order of hashed names."""
    rows_by_group: dict[str, Counter[str]] = {group: Counter() for group in by_source}
    remaining: dict[str, set[str]] = {}
    for label, group in zip(labels, groups, strict=True):
        remaining.setdefault(label, set()).add(group)
        if group in rows_by_group:
            rows_by_group[group][label] += 1
    room = {label: rows * share for label, rows in Counter(labels).items()}
    chosen: set[str] = set()
    for group in sorted(rows_by_group, key=lambda group: (derived_seed(seed, "test", group), group)):
        counts = rows_by_group[group]
        if all(rows <= room[label] and len(remaining[label]) > min_remaining for label, rows in counts.items()):
            chosen.add(group)
            for label, rows in counts.items():
                room[label] -= rows
                remaining[label].discard(group)
    return chosen

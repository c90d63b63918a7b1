"""Counts of the review log, kept up to date with each new line: the input of statistics.py and of the live panel.

What the answers about a row say is counted per row. If an answer is added, undone or restored, the row's former counts
are subtracted and its new ones added, so that a line costs microseconds, whatever the length of the log.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from seedling.review.agreement import SuggestionCounts
from seedling.review.decisions import ClassMap, Vote
from seedling.review.error_rate import Counted
from seedling.review.log import Line, ReviewerFile
from seedling.review.records import Answer, ClassChange, Purpose, Undo

MIN_TIMED_MILLISECONDS = 60_000
MAX_ACTIVE_MILLISECONDS = 60_000  # on one screen; a longer time is a pause
SECOND_LOOKS: frozenset[Purpose] = frozenset({"random", "gold", "repeat", "overlap"})  # earlier answers are hidden
OTHER_CLASS = "\x1fanother class"

LabelKind = Literal["labels", "pseudo_labels"]
LABEL_KINDS: tuple[LabelKind, ...] = ("labels", "pseudo_labels")
Key = tuple[str | bool | tuple[str, ...], ...]  # the first item names the count


@dataclass
class ReviewerTime:
    """A reviewer's answers of all kinds, decisions, undone answers, and milliseconds at the keyboard."""

    answers: int = 0
    decisions: int = 0
    milliseconds: int = 0

    @property
    def per_hour(self) -> float | None:
        """Decisions per hour of active time; None before the first minute, which says little."""
        return self.decisions / self.milliseconds * 3_600_000 if self.milliseconds >= MIN_TIMED_MILLISECONDS else None


class ReviewTally:
    """The counts of all lines so far."""

    def __init__(self, files: Mapping[str, ReviewerFile] | None = None) -> None:
        self.counts: Counter[Key] = Counter()
        self.times: defaultdict[str, ReviewerTime] = defaultdict(ReviewerTime)
        self.classes = ClassMap(())
        self._answers: dict[str, Answer] = {}
        self._of_row: defaultdict[str, list[str]] = defaultdict(list)
        self._undone: set[str] = set()
        self._counted: dict[str, list[Key]] = {}  # row id → what its answers add to the counts
        self._keys: dict[Key, Key] = {}  # each key once
        self._batches: set[str] = set()
        if files is not None:
            self.add([line for file in files.values() for line in file.lines])

    def add(self, lines: Iterable[Line]) -> None:
        """Count further lines; those of one reviewer in the order of the file. A line that was counted is skipped."""
        rows, changes = set[str](), list[ClassChange]()
        for line in lines:
            if isinstance(line, Answer):
                if line.id not in self._answers:
                    self._add_answer(line)
                    rows.add(line.row_id)
            elif isinstance(line, Undo):
                ids = set(line.answer_ids)
                self._undone = self._undone | ids if line.kind == "undo" else self._undone - ids
                rows |= {self._answers[name].row_id for name in ids if name in self._answers}
            else:
                changes.append(line)
        present = {change.id for change in self.classes.changes}
        new_changes = [change for change in changes if change.id not in present]
        if new_changes:
            self.classes = ClassMap([*self.classes.changes, *new_changes])
            rows |= set(self._of_row)
        for row_id in rows:
            self._count_row(row_id)

    @property
    def undone(self) -> Counter[str]:
        """Reviewer → answers that are undone."""
        answers = (self._answers.get(answer_id) for answer_id in self._undone)
        return Counter(answer.reviewer for answer in answers if answer is not None)

    @property
    def active_decisions(self) -> Counter[str]:
        """Reviewer → decisions that are not undone."""
        undone = Counter(
            answer.reviewer
            for answer in (self._answers.get(answer_id) for answer_id in self._undone)
            if answer is not None and answer.is_decisive and answer.purpose != "imported"
        )
        return Counter({reviewer: time.decisions - undone[reviewer] for reviewer, time in self.times.items()})

    def _add_answer(self, answer: Answer) -> None:
        self._answers[answer.id] = answer
        self._of_row[answer.row_id].append(answer.id)
        time = self.times[answer.reviewer]
        time.answers += 1
        if answer.purpose == "imported":
            return
        time.decisions += answer.is_decisive
        if answer.batch is None or answer.batch not in self._batches:  # the rows of a grid were seen together
            time.milliseconds += min(answer.milliseconds, MAX_ACTIVE_MILLISECONDS)
        if answer.batch is not None:
            self._batches.add(answer.batch)

    def _count_row(self, row_id: str) -> None:
        answers = [self._answers[answer_id] for answer_id in self._of_row[row_id] if answer_id not in self._undone]
        if len(answers) > 1:
            answers.sort(key=lambda answer: answer.written_at)
        for key in self._counted.get(row_id, ()):
            self.counts[key] -= 1
            if not self.counts[key]:
                del self.counts[key]
        counted = [self._keys.setdefault(key, key) for key in row_counts(answers, self.classes)]
        for key in counted:
            self.counts[key] += 1
        self._counted[row_id] = counted

    def counted(self, name: str, *start: str) -> dict[tuple[str, ...], Counted]:
        """Further items of the key → rows and differing rows, for counts that end with whether the row differs."""
        rows: Counter[tuple[str, ...]] = Counter()
        differ: Counter[tuple[str, ...]] = Counter()
        prefix = (name, *start)
        for key, count in self.counts.items():
            if key[: len(prefix)] == prefix:
                items = tuple(str(item) for item in key[len(prefix) : -1])
                rows[items] += count
                differ[items] += count if key[-1] else 0
        return {items: Counted(count, differ[items]) for items, count in rows.items()}

    def votes_of_pairs(self) -> dict[tuple[str, str], dict[tuple[str, str], int]]:
        """Two reviewers → class by the first and by the second → rows."""
        pairs: dict[tuple[str, str], dict[tuple[str, str], int]] = defaultdict(dict)
        for key, count in self.counts.items():
            if key[0] == "votes":
                _, first, second, label, other = (str(item) for item in key)
                pairs[first, second][label, other] = count
        return pairs

    def units(self) -> dict[tuple[str, ...], int]:
        """The answers of the reviewers who share a row → rows."""
        return {key[1]: count for key, count in self.counts.items() if key[0] == "unit" and isinstance(key[1], tuple)}

    def suggestions(self, reviewer: str | None = None, *, random_only: bool = False) -> list[SuggestionCounts]:
        """Agreement with suggestions by stratum, of a reviewer or of all."""
        strata: defaultdict[str, Counter[tuple[bool, bool]]] = defaultdict(Counter)
        for key, count in self.counts.items():
            if key[0] == "suggestion" and reviewer in {None, key[1]} and (key[2] or not random_only):
                strata[str(key[3])][bool(key[4]), bool(key[5])] += count
        return [
            SuggestionCounts(
                shown_rows=counts[True, True] + counts[True, False],
                shown_agree=counts[True, True],
                hidden_rows=counts[False, True] + counts[False, False],
                hidden_agree=counts[False, True],
            )
            for _, counts in sorted(strata.items())
        ]


def is_blind(answer: Answer) -> bool:
    """Whether the reviewer saw neither a suggestion nor the class that the row is thought to have."""
    return not answer.suggestion_shown and answer.asked_label is None and answer.purpose != "imported"


def contradicts(answer: Answer, label: str | None, classes: ClassMap) -> bool | None:
    """Whether the answer says that the label, of the time of the answer, is wrong; None if it does not tell."""
    label = classes.present_label(label, answer.written_at)
    if label is None:
        return None
    if answer.answer == "none_of_these":
        return True
    if answer.answer == "label":
        answered = classes.present_label(answer.label, answer.written_at)
        return None if answered is None else answered != label
    if answer.answer == "reject":
        return True if classes.present_label(answer.asked_label, answer.written_at) == label else None
    return None


def differ(first: Vote, second: Vote) -> bool | None:
    """Whether two votes cannot both be right; None if that cannot be told."""
    labels = comparable([first, second])
    return None if labels is None else labels[0] != labels[1]


def comparable(votes: Sequence[Vote]) -> list[str] | None:
    """The votes as classes that can be compared; None if they cannot.

    If a vote only rejects classes, the question of all is whether the row is of one of these: a vote for a class that
    is not among them is `OTHER_CLASS`, as is the rejection.
    """
    rejected = {label for vote in votes if vote.kind == "reject" for label in vote.rejected_labels}
    is_partial = any(vote.kind == "reject" and vote.rejected_labels != rejected for vote in votes)
    if is_partial:
        return None
    labels = []
    for vote in votes:
        if vote.kind == "label" and vote.label is not None:
            labels.append(vote.label if not rejected or vote.label in rejected else OTHER_CLASS)
        elif vote.kind in {"none_of_these", "bad"}:
            labels.append(f"\x1f{vote.kind}" if not rejected else OTHER_CLASS)
        elif vote.kind == "reject":
            labels.append(OTHER_CLASS)
        else:
            return None
    return labels


def row_counts(answers: Sequence[Answer], classes: ClassMap) -> list[Key]:
    """The keys of the counts to which the answers about one row, in their order, each add 1."""
    counts: list[Key] = []
    votes: dict[str, Vote] = {}
    for answer in answers:
        before = votes.get(answer.reviewer)
        vote = (before or Vote()).after(answer, classes)
        if answer.is_decisive:
            _count_second_answer(counts, answer, votes, classes)
            votes[answer.reviewer] = vote
        _count_suggestion(counts, answer, classes)
    _count_random_row(counts, answers, classes)
    _count_looks(counts, answers, classes)
    _count_outcome(counts, answers, classes)
    cast = {reviewer: vote for reviewer, vote in sorted(votes.items()) if vote.kind is not None}
    if len(cast) > 1:
        _count_votes(counts, cast)
    return counts


def _vote(answer: Answer, classes: ClassMap) -> Vote:
    return Vote().after(answer, classes)


def _count_second_answer(counts: list[Key], answer: Answer, votes: Mapping[str, Vote], classes: ClassMap) -> None:
    """Gold questions, repeats, and changed answers. votes: before the answer, by reviewer."""
    vote, before = _vote(answer, classes), votes.get(answer.reviewer)
    if answer.purpose == "gold":
        majority = Counter(vote for vote in votes.values() if vote.kind is not None).most_common(2)
        if majority and (len(majority) == 1 or majority[0][1] > majority[1][1]):
            is_wrong = differ(majority[0][0], vote)
            if is_wrong is not None:
                counts.append(("gold", answer.reviewer, is_wrong))
    if before is not None:
        differs = differ(before, vote)
        if answer.purpose in SECOND_LOOKS and differs is not None:
            counts.append(("repeat", answer.reviewer, differs))
        elif answer.purpose not in SECOND_LOOKS and (differs or before.kind != vote.kind):
            counts.append(("changed", answer.reviewer))


def _count_suggestion(counts: list[Key], answer: Answer, classes: ClassMap) -> None:
    """Agreement with the suggestion. The stratum is how the suggestion relates to the row's label."""
    disagrees = contradicts(answer, answer.suggestion, classes)
    if disagrees is None or answer.purpose == "imported":
        return
    label = answer.previous_label
    stratum = "no label" if label is None else "the label" if label == answer.suggestion else "another class"
    is_suggested = answer.suggestion_shown or answer.asked_label == answer.suggestion
    if is_suggested or is_blind(answer):  # else the page named another class
        counts.append(("suggestion", answer.reviewer, answer.purpose == "random", stratum, is_suggested, not disagrees))


def _count_random_row(counts: list[Key], answers: Sequence[Answer], classes: ClassMap) -> None:
    """The first random question about the row without a suggestion that was decided."""
    asked_blind = [answer for answer in answers if answer.purpose == "random" and is_blind(answer)]
    undecided = ""
    for answer in asked_blind:
        kind: LabelKind = "labels" if answer.previous_label is not None else "pseudo_labels"
        label = answer.previous_label if answer.previous_label is not None else answer.suggestion
        if label is None:
            continue
        is_wrong = contradicts(answer, label, classes)
        if is_wrong is not None:
            counts.append(("random", kind, answer.reviewer, is_wrong))
            return
        undecided = undecided or kind
    if undecided:
        counts.append(("random without an answer", undecided))


def _count_looks(counts: list[Key], answers: Sequence[Answer], classes: ClassMap) -> None:
    """Answers to the same question, each without a suggestion: evidence of the reviewers' errors."""
    previous: tuple[str, Vote] | None = None
    pairs: set[tuple[str, str]] = set()
    for answer in answers:
        if not is_blind(answer) or answer.answer == "bad" or not answer.is_decisive:
            continue
        vote = _vote(answer, classes)
        is_correction = previous is not None and previous[0] == answer.reviewer and answer.purpose not in SECOND_LOOKS
        if previous is not None and not is_correction:
            differs = differ(previous[1], vote)
            first, second = sorted([previous[0], answer.reviewer])
            if differs is not None and (first, second) not in pairs:  # a row that is asked ever again counts once
                pairs.add((first, second))
                counts.append(("looks", first, second, differs))
        previous = (answer.reviewer, vote)


def _count_outcome(counts: list[Key], answers: Sequence[Answer], classes: ClassMap) -> None:
    """Whether the last answer about a labeled row contradicts the label that the row had before its review."""
    for answer in reversed(answers):
        if answer.is_decisive:
            is_wrong = contradicts(answer, answers[0].previous_label, classes)
            if is_wrong is not None:
                counts.append(("reviewed label", is_wrong))
            return


def _count_votes(counts: list[Key], cast: Mapping[str, Vote]) -> None:
    reviewers = sorted(cast)
    for position, first in enumerate(reviewers):
        for second in reviewers[position + 1 :]:
            labels = comparable([cast[first], cast[second]])
            if labels is not None:
                counts.append(("votes", first, second, labels[0], labels[1]))
    labels = comparable(list(cast.values()))
    if labels is not None:
        counts.append(("unit", tuple(sorted(labels))))

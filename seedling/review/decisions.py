"""Turns the review log into one decision per row.

1. Of each reviewer, the answers that were not undone count; a later answer about a row replaces an earlier one.
2. Changes of classes map the labels of earlier answers.
3. If reviewers differ about a row, the majority decides. If the votes are tied, the model of Dawid and Skene (1979)
   decides, which estimates each reviewer's confusions from all rows that several reviewers answered. If it does not
   decide either, the row keeps its label and is listed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from seedling.review.log import ReviewerFile, read_log
from seedling.review.records import Answer, ClassChange, Undo
from seedling.stats.voting import DawidSkene, Votes

DecisionKind = Literal["label", "reject", "none_of_these", "bad", "duplicate"]
SEPARATOR = "\x1f"  # between the kind and the label of a vote


@dataclass(frozen=True)
class Decision:
    """What reviewers decided about a row.

    label: the class, for the kind `label`. rejected_labels: the classes that the row does not have, for `reject`.
    """

    row_id: str
    kind: DecisionKind
    label: str | None = None
    rejected_labels: tuple[str, ...] = ()
    reviewers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Disagreement:
    """A row about which reviewers differ. votes: reviewer and vote; decision: None if the votes remain tied."""

    row_id: str
    votes: Votes
    decision: Decision | None


class ClassMap:
    """The changes of the classes in the log, the earliest first."""

    def __init__(self, changes: Iterable[ClassChange]) -> None:
        self.changes = sorted(changes, key=lambda change: (change.written_at, change.id))

    def __bool__(self) -> bool:
        return bool(self.changes)

    def present_label(self, label: str | None, since: str = "") -> str | None:
        """The present class of a label that was given at the time `since`; None if its class was split."""
        for change in self.changes:
            if label is None or change.written_at <= since:
                continue
            if change.operation in {"rename", "merge"} and label in change.old:
                label = change.new[0]
            elif change.operation == "split" and label in change.old:
                label = None
        return label

    def drops(self, answer: Answer) -> bool:
        """Whether the answer named a class that was split since, so that its row is asked again."""
        label = {"label": answer.label, "reject": answer.asked_label}.get(answer.answer)
        return label is not None and self.present_label(label, answer.written_at) is None

    def added(self) -> list[str]:
        """The classes that changes added, under their present names."""
        labels = []
        for change in self.changes:
            for label in change.new:
                present = self.present_label(label, change.written_at)
                if present is not None and present not in labels:
                    labels.append(present)
        return labels


@dataclass
class Decisions:
    """The present content of the review log.

    by_row: row id → decision. answers: of all reviewers, without undone ones, in the order in which they were written.
    damaged, edited: "file:line" of lines that cannot be read, or that were changed by hand.
    """

    by_row: dict[str, Decision] = field(default_factory=dict)
    disagreements: list[Disagreement] = field(default_factory=list)
    classes: ClassMap = field(default_factory=lambda: ClassMap(()))
    answers: list[Answer] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.by_row) or bool(self.classes)


def read_decisions(folder: Path) -> Decisions:
    """Read the review log. folder: reviews/, which may be missing."""
    return decide(read_log(folder))


def decide(files: Mapping[str, ReviewerFile]) -> Decisions:
    """Return the decisions of the reviewers' files, by reviewer."""
    classes = ClassMap(line for file in files.values() for line in file.lines if isinstance(line, ClassChange))
    answers = {reviewer: active_answers(file.lines) for reviewer, file in files.items()}
    votes: dict[str, dict[str, Vote]] = defaultdict(dict)
    for reviewer, reviewer_answers in answers.items():
        for answer in reviewer_answers:
            previous = votes[answer.row_id].get(reviewer, Vote())
            votes[answer.row_id][reviewer] = previous.after(answer, classes)
    decisions = Decisions(
        classes=classes,
        answers=sorted(
            (answer for reviewer_answers in answers.values() for answer in reviewer_answers),
            key=lambda answer: answer.written_at,
        ),
        damaged=[f"{name}:{number}" for name, file in files.items() for number in file.damaged],
        edited=[f"{name}:{number}" for name, file in files.items() for number in file.edited],
    )
    _count_votes(votes, decisions)
    return decisions


def active_answers(lines: Sequence[Answer | Undo | ClassChange]) -> list[Answer]:
    """The answers of one reviewer's file that were not undone, in their order."""
    undone: set[str] = set()
    for line in lines:
        if isinstance(line, Undo):
            undone = undone | set(line.answer_ids) if line.kind == "undo" else undone - set(line.answer_ids)
    answers, ids = [], set()
    for line in lines:
        if isinstance(line, Answer) and line.id not in undone and line.id not in ids:
            ids.add(line.id)
            answers.append(line)
    return answers


@dataclass(frozen=True)
class Vote:
    """A reviewer's view of a row after some answers."""

    kind: DecisionKind | None = None
    label: str | None = None
    rejected_labels: frozenset[str] = frozenset()

    def after(self, answer: Answer, classes: ClassMap) -> Vote:
        """The view after a further answer."""
        label = classes.present_label(answer.label, answer.written_at)
        if answer.answer == "label":
            return Vote("label", label) if label is not None else Vote()
        if answer.answer == "reject":
            rejected = classes.present_label(answer.asked_label, answer.written_at)
            rejected_labels = self.rejected_labels | ({rejected} if rejected is not None else set())
            return Vote("reject", None, rejected_labels) if rejected_labels else Vote()
        if answer.answer == "none_of_these":
            return Vote("none_of_these")
        if answer.answer == "bad":
            return Vote("bad", self.label, self.rejected_labels)
        if answer.answer == "duplicate":
            return Vote("duplicate", self.label, self.rejected_labels)
        if answer.answer == "keep" and self.kind in {"bad", "duplicate"}:  # the label from before counts again
            kind: DecisionKind | None = "label" if self.label else "reject" if self.rejected_labels else None
            return Vote(kind, self.label, self.rejected_labels)
        return self

    @property
    def name(self) -> str:
        """The vote as text, so that equal votes are counted together."""
        details = self.label if self.kind == "label" else SEPARATOR.join(sorted(self.rejected_labels))
        return f"{self.kind}{SEPARATOR}{details}" if self.kind in {"label", "reject"} else str(self.kind)

    def decision(self, row_id: str, reviewers: Iterable[str]) -> Decision | None:
        """The decision that follows from the vote."""
        if self.kind is None:
            return None
        label = self.label if self.kind == "label" else None
        rejected_labels = tuple(sorted(self.rejected_labels)) if self.kind == "reject" else ()
        return Decision(row_id, self.kind, label, rejected_labels, tuple(sorted(reviewers)))


def _count_votes(votes: Mapping[str, Mapping[str, Vote]], decisions: Decisions) -> None:
    patterns: Counter[Votes] = Counter()
    votes_of_row: dict[str, dict[str, Vote]] = {}
    for row_id, by_reviewer in votes.items():
        cast = {reviewer: vote for reviewer, vote in sorted(by_reviewer.items()) if vote.kind is not None}
        if cast:
            votes_of_row[row_id] = cast
            if len(cast) > 1:
                patterns[_names(cast)] += 1
    estimated: DawidSkene | None = None  # only ties need it
    for row_id, cast in sorted(votes_of_row.items()):
        counts = Counter(vote.name for vote in cast.values()).most_common()
        winner: str | None = counts[0][0]
        if len(counts) > 1 and counts[0][1] == counts[1][1]:
            estimated = estimated or DawidSkene(patterns)
            agreed = estimated(_names(cast))
            winner = None if agreed is None else agreed.label
        supporters = {reviewer: vote for reviewer, vote in cast.items() if vote.name == winner}
        decision = next(iter(supporters.values())).decision(row_id, supporters) if supporters else None
        if decision is not None:
            decisions.by_row[row_id] = decision
        if len(counts) > 1:
            decisions.disagreements.append(Disagreement(row_id, _names(cast), decision))


def _names(cast: Mapping[str, Vote]) -> Votes:
    return tuple((reviewer, vote.name) for reviewer, vote in cast.items())

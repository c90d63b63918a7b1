"""Turns the rows of another tool's file into answers of the review log.

1. A row is matched by Seedling's id, or by its content if the tool lost the id.
2. Labels that models gave are counted, and are never answers.
3. Of several answers of a reviewer about a row, the latest counts.
4. The id of an answer is a hash of the tool, its annotation, the row, the reviewer and the answer. The review log
   stores an id once, so that a file that is imported again adds nothing.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import groupby
from typing import TYPE_CHECKING, Any

from seedling.dataset.schema import identify
from seedling.errors import InputError
from seedling.media import images, texts
from seedling.progress import Progress, silent
from seedling.review.decisions import ClassMap
from seedling.review.log import reviewer_name
from seedling.review.records import (
    MAX_LABEL_CHARACTERS,
    MAX_NAME_CHARACTERS,
    MAX_NOTE_CHARACTERS,
    Answer,
    ClassChange,
)
from seedling.terminal.counts import counted_noun

if TYPE_CHECKING:
    from seedling.review.exchange.external_rows import ExternalAnswer, ExternalRow
    from seedling.review.log import Line, ReviewLog
    from seedling.review.rows import ReviewRows

ID_BYTES = 16
LINES_PER_BLOCK = 500  # that are written to the log and flushed to the disk at once
MAX_LISTED = 10
MAX_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class LabelRules:
    """How labels of a file become classes.

    renames: label of the file → class. add_classes: whether labels that are not classes become classes. changes: the
    class changes of the review log, which map labels from before.
    """

    renames: Mapping[str, str] = field(default_factory=dict)
    add_classes: bool = False
    changes: ClassMap = field(default_factory=lambda: ClassMap(()))


def renames_of(options: Iterable[str]) -> dict[str, str]:
    """The renames of options in the form LABEL=CLASS. Raises InputError for another form."""
    renames = {}
    for option in options:
        label, separator, name = option.partition("=")
        if not separator or not label.strip() or not name.strip():
            raise InputError(
                f"--map-class {shortened(option)} is not in the form LABEL=CLASS, as in --map-class kitten=cat."
            )
        renames[tidy_label(label)] = tidy_label(name)
    return renames


@dataclass
class ImportCounts:
    """What an import read.

    rows: in the file. answers: that are new or in the log already. without_answer: rows about which nobody answered.
    predictions: labels of models. unknown_rows: rows with an answer that are not rows of the workspace. by_content:
    rows that were matched by their content. superseded: earlier answers of a reviewer about the same row. unusable:
    reason → number of annotations. unknown_positions: where the first unknown rows are in the file.
    """

    rows: int = 0
    answers: int = 0
    without_answer: int = 0
    predictions: int = 0
    unknown_rows: int = 0
    by_content: int = 0
    superseded: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    unknown_positions: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """The counts as sentences, without those that are zero."""
        sentences = [f"{counted_noun(self.rows, 'row')} read, {counted_noun(self.answers, 'answer')}."]
        if self.without_answer:
            sentences.append(f"Nobody answered {counted_noun(self.without_answer, 'row')}.")
        if self.predictions:
            predictions = counted_noun(self.predictions, "prediction")
            sentences.append(f"{predictions} of models ignored: a prediction is never a review.")
        if self.by_content:
            sentences.append(f"{counted_noun(self.by_content, 'row')} without Seedling's id, matched by content.")
        if self.unknown_rows:
            listed = ", ".join(self.unknown_positions)
            sentences.append(
                f"{counted_noun(self.unknown_rows, 'row')} not found in this workspace, for example {listed}."
            )
        if self.superseded:
            superseded = counted_noun(self.superseded, "earlier answer")
            sentences.append(f"{superseded} of the same reviewer about the same row ignored.")
        sentences += [
            f"{counted_noun(count, 'annotation')} ignored: {reason.replace('_', ' ')}."
            for reason, count in sorted(self.unusable.items())
        ]
        return sentences


@dataclass(frozen=True)
class ImportResult:
    """The answers of a file, at most one per reviewer and row, and the classes that they add."""

    answers: tuple[Answer, ...]
    counts: ImportCounts
    new_classes: tuple[str, ...] = ()

    def store(self, log: ReviewLog, progress: Progress = silent) -> int:
        """Append the answers to the review log, and return the number of those that were new.

        They are written in blocks. After a kill, a second import writes those that are missing.
        """
        stored = 0
        by_reviewer = sorted(self.answers, key=lambda answer: answer.reviewer)
        for reviewer, answers in groupby(by_reviewer, key=lambda answer: answer.reviewer):
            lines = list(answers)
            labels = {answer.label for answer in lines} | {answer.asked_label for answer in lines}
            additions = [
                ClassChange(id=_line_id("add", label), reviewer=reviewer, operation="add", new=(label,))
                for label in self.new_classes
                if label in labels
            ]
            to_write: list[Line] = [*additions, *lines]
            for first in range(0, len(to_write), LINES_PER_BLOCK):
                written = log.append(reviewer, to_write[first : first + LINES_PER_BLOCK])
                stored += sum(line.kind == "answer" for line in written)
                progress("save", min(first + LINES_PER_BLOCK, len(to_write)), len(to_write))
        return stored


def import_rows(
    tool: str,
    external_rows: Iterable[ExternalRow],
    rows: ReviewRows,
    reviewer: str | None,
    rules: LabelRules,
    max_megapixels: float,
    default_reviewer: str | None = None,
) -> ImportResult:
    """Return the answers of the rows of a file.

    tool: its name, part of the answers' ids. reviewer: under whose name the answers are stored; None: the name that the
    file has for each. default_reviewer: the name for answers without one in the file, None: an error.

    Raises InputError if no row is one of the workspace, if a label is not a class, or if a reviewer is unknown.
    """
    importer = _Importer(tool, rows, (reviewer, default_reviewer), rules, max_megapixels)
    for row in external_rows:
        importer.add(row)
    return importer.result()


class _Importer:
    """Collects the answers of a file, row by row."""

    def __init__(
        self,
        tool: str,
        rows: ReviewRows,
        reviewers: tuple[str | None, str | None],
        rules: LabelRules,
        max_megapixels: float,
    ) -> None:
        """reviewers: of all answers, or None; and of those without a name in the file, or None."""
        self._tool, self._rows, self._rules, self._max_megapixels = tool, rows, rules, max_megapixels
        self._reviewer, self._default_reviewer = (None if name is None else reviewer_name(name) for name in reviewers)
        self._classes = frozenset(rows.classes)
        self._counts = ImportCounts()
        self._matched = 0
        self._unmatched: list[str] = []  # positions of rows with an unknown id, whether or not they have an answer
        self._unknown_labels: Counter[str] = Counter()
        self._latest: dict[tuple[str, str], tuple[int, Answer]] = {}

    def add(self, row: ExternalRow) -> None:
        self._counts.rows += 1
        self._counts.predictions += row.predictions
        self._counts.unusable.update(row.unusable)
        position = self._position_by_id(row)
        if not row.answers:
            self._counts.without_answer += 1
            if position is not None:
                self._matched += 1
            elif row.row_ids:
                self._unmatched.append(row.position)
            return
        if position is None:
            position = self._position_by_content(row)
            self._counts.by_content += position is not None
        if position is None:
            self._counts.unknown_rows += 1
            self._unmatched.append(row.position)
            if len(self._counts.unknown_positions) < MAX_LISTED // 2:
                self._counts.unknown_positions.append(row.position)
            return
        self._matched += 1
        for external in row.answers:
            self._add_answer(row, external, position)

    def _position_by_id(self, row: ExternalRow) -> int | None:
        for row_id in row.row_ids:
            position = self._rows.ids.position(row_id)
            if position is not None:
                return position
        return None

    def _position_by_content(self, row: ExternalRow) -> int | None:
        for content in row.contents():
            row_id = content_id(content, self._max_megapixels)
            position = None if row_id is None else self._rows.ids.position(row_id)
            if position is not None:
                return position
        return None

    def _add_answer(self, row: ExternalRow, external: ExternalAnswer, position: int) -> None:
        reviewer = self._reviewer or external.reviewer or self._default_reviewer
        if reviewer is None:
            raise InputError(f"{row.position}: the file does not say who answered. Name the reviewer: --reviewer anna.")
        label, asked_label = self._class(external.label), self._class(external.asked_label)
        if external.error_unless_class and label not in self._classes:
            raise InputError(external.error_unless_class)
        row_id = self._rows.ids[position]
        parts = (external.annotation_id, row_id, reviewer, external.answer, label or "", asked_label or "")
        answer = Answer(
            id=_line_id(self._tool, *parts),
            reviewer=reviewer_name(reviewer),
            row_id=row_id,
            question="verify" if external.answer == "reject" else "label",
            answer=external.answer,
            label=None if label is None else label[:MAX_LABEL_CHARACTERS],
            asked_label=None if asked_label is None else asked_label[:MAX_LABEL_CHARACTERS],
            previous_label=self._rows.labels[position],
            previous_source=self._rows.label_sources[position],
            suggestion=None if row.suggestion is None else storable(row.suggestion),
            suggestion_shown=row.suggestion is not None,
            purpose="imported",
            note=storable(external.note)[:MAX_NOTE_CHARACTERS] if external.note else None,
            answered_at=external.answered_at,
            milliseconds=external.milliseconds,
        )
        key = (reviewer, row_id)
        if key in self._latest:
            self._counts.superseded += 1
        if key not in self._latest or external.answered_at >= self._latest[key][0]:
            self._latest[key] = (external.answered_at, answer)

    def _class(self, label: str | None) -> str | None:
        """The class of a label; a label that is not a class is counted, for the error or as a new class."""
        if label is None:
            return None
        tidy = tidy_label(label)
        for name in (label, tidy):
            if name in self._rules.renames:
                return self._rules.renames[name]
        for present in (label, tidy, self._rules.changes.present_label(tidy)):
            if present is not None and present in self._classes:
                return present
        self._unknown_labels[tidy] += 1
        return tidy

    def result(self) -> ImportResult:
        if not self._counts.rows:
            raise InputError("The file has no rows: export it again.")
        if self._unmatched and not self._matched:
            raise InputError(
                f"No row of the file is a row of this workspace ({len(self._unmatched):,} rows, for example "
                f"{self._unmatched[0]}). Is it an export of another workspace, or were its contents changed? Export "
                "the rows again, and keep Seedling's id, which is in each exported row."
            )
        self._check_labels()
        answers = tuple(answer for _, answer in self._latest.values())
        self._counts.answers = len(answers)
        return ImportResult(answers, self._counts, tuple(sorted(self._new_classes(answers))))

    def _new_classes(self, answers: Sequence[Answer]) -> set[str]:
        labels = {label for answer in answers for label in (answer.label, answer.asked_label) if label is not None}
        return labels - set(self._rows.classes)

    def _check_labels(self) -> None:
        """Raise InputError for labels that are too long, and for labels that are not classes unless they are added."""
        targets = {target: 1 for target in self._rules.renames.values() if target not in self._rows.classes}
        unknown = self._unknown_labels + Counter(targets)
        for label in unknown:
            if not 1 <= len(label) <= MAX_LABEL_CHARACTERS:
                raise InputError(
                    f"A label has {len(label):,} characters ({shortened(label)}): use 1 to {MAX_LABEL_CHARACTERS:,}, "
                    "or map it to a class with --map-class."
                )
        if not unknown or self._rules.add_classes:
            return
        listed = "; ".join(
            f"{shortened(label)} ({count:,} answer{'s' * (count > 1)}{self._hint(label)})"
            for label, count in unknown.most_common(MAX_LISTED)
        )
        more = f"; and {len(unknown) - MAX_LISTED:,} more" if len(unknown) > MAX_LISTED else ""
        example = shortened(next(iter(unknown)), 20).strip("'")
        raise InputError(
            f"{len(unknown):,} label{'s' * (len(unknown) > 1)} of the file "
            f"{'are not classes' if len(unknown) > 1 else 'is not a class'} of this workspace: {listed}{more}. Map a "
            f"label to a class with --map-class '{example}=CLASS', or add all of them as classes with --add-classes."
        )

    def _hint(self, label: str) -> str:
        by_folded = {name.casefold(): name for name in self._rows.classes}
        matches = get_close_matches(label[:MAX_NAME_CHARACTERS].casefold(), by_folded, n=1, cutoff=0.8)
        return f", did you mean {shortened(by_folded[matches[0]])}?" if matches else ""


def content_id(content: bytes | str, max_megapixels: float) -> str | None:
    """The row id of an image file or a text; None if the image cannot be decoded."""
    if isinstance(content, str):
        try:
            return identify(texts.content(content))
        except UnicodeEncodeError:  # half of a surrogate pair
            return None
    try:
        return identify(images.content(images.decode(content, max_megapixels)))
    except images.Undecodable:
        return None


def tidy_label(label: str) -> str:
    """The label in NFC and with blanks folded."""
    return " ".join(unicodedata.normalize("NFC", storable(label)).split())


def storable(text: str) -> str:
    """The text with half surrogate pairs, which no file can store, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shortened(text: str, max_characters: int = MAX_SHOWN_CHARACTERS) -> str:
    """The text in quotation marks, cut with its length if it is long, for messages."""
    if len(text) <= max_characters:
        return f"'{text}'"
    return f"'{text[:max_characters]}…' of {len(text):,} characters"


def name_of_person(person: Any) -> str | None:
    """The reviewer's name of a person in another tool: an e-mail address, a user name or a number; None without any.

    The name depends on nothing else, so that a later file gives the same one: anna@example.org is anna-example.org. If
    characters other than @ are replaced, a hash keeps the names of different people apart.
    """
    if person is None or isinstance(person, bool) or not str(person).strip():
        return None
    text = str(person).strip()
    name = re.sub(r"[^A-Za-z0-9._-]", "-", text).lstrip("._-")
    if name == text.replace("@", "-", 1) and len(name) <= MAX_NAME_CHARACTERS:
        return name
    digest = hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=4).hexdigest()
    return f"{name[: MAX_NAME_CHARACTERS - len(digest) - 1] or 'reviewer'}-{digest}"


def _line_id(*parts: str) -> str:
    content = "\x1f".join(parts).encode("utf-8", "backslashreplace")
    return hashlib.blake2b(content, digest_size=ID_BYTES).hexdigest()

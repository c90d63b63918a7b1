"""The rows that are exported for another tool, each with its content and what Seedling knows about it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from seedling.dataset.reader import payloads
from seedling.media.image_export import image_for_others, suffix_of
from seedling.media.images import Undecodable

if TYPE_CHECKING:
    from seedling.review.decisions import Decisions
    from seedling.review.records import Answer
    from seedling.review.rows import ReviewRows

State = Literal["reviewed", "labeled", "predicted", "unlabeled"]
REVIEW_SOURCE = "review"  # the label_source of a label that reviewers decided
MAX_MEGAPIXELS = 1_000.0  # the stages have already checked the images with the workspace's own limit
PROBABILITY_DIGITS = 6

# The columns of an exported row in every format, besides `image` or `text`. People edit those of EDITED_FIELDS.
EDITED_FIELDS = ("label", "answer", "note", "reviewer")
TEXT_FIELDS = (
    "id",
    "split",
    "label",
    "exported_label",
    "label_source",
    "state",
    "suggestion",
    "decision",
    "answers",
    "answer",
    "note",
    "reviewer",
    "origin",
    "license",
    "attribution",
    "exported_at",
)
NUMBER_FIELDS = ("suggestion_probability", "p_label_error")


@dataclass(frozen=True)
class ExportedRow:
    """A row for another tool.

    label: the present label, with the decisions of reviewers; None if there is none. state: `reviewed` if reviewers
    have decided about the row, else `labeled` if it has a label, `predicted` if only a model has labeled it, or
    `unlabeled`. suggestion: the model's likeliest class. decision: the kind of the reviewers' decision. answers: of all
    reviewers, in the order in which they were written. exported_at: ISO 8601, the same for all rows of an export.
    content: the image file without metadata, or the text.
    """

    id: str
    split: str
    label: str | None
    label_source: str | None
    state: State
    suggestion: str | None
    suggestion_probability: float | None
    p_label_error: float | None
    decision: str | None
    answers: tuple[Answer, ...]
    origin: str | None
    license: str | None
    attribution: str | None
    exported_at: str
    content: bytes | str

    def fields(self) -> dict[str, str | float | None]:
        """The values of TEXT_FIELDS and NUMBER_FIELDS. `exported_label` stays as it is when a person edits `label`."""
        values: dict[str, str | float | None] = dict.fromkeys(EDITED_FIELDS)
        values |= {name: getattr(self, name) for name in (*TEXT_FIELDS, *NUMBER_FIELDS) if hasattr(self, name)}
        values |= {"exported_label": self.label, "answers": self.answers_json()}
        return {name: values[name] for name in (*TEXT_FIELDS[:7], *NUMBER_FIELDS, *TEXT_FIELDS[7:])}

    def answers_json(self) -> str | None:
        """The answers as JSON; None if there are none."""
        return json.dumps(self.answer_values(), ensure_ascii=False) if self.answers else None

    def answer_values(self) -> list[dict[str, Any]]:
        """The answers as plain values."""
        names = ("id", "reviewer", "answer", "label", "asked_label", "purpose", "note", "written_at")
        return [
            {name: getattr(answer, name) for name in names if getattr(answer, name) is not None}
            for answer in self.answers
        ]

    def write_image(self, folder: Path) -> Path:
        """Write the image to `<id>.<suffix>` in the folder, and return its path."""
        if isinstance(self.content, str):
            raise TypeError("a text has no image file")
        path = folder / f"{self.id}.{suffix_of(self.content)}"
        path.write_bytes(self.content)
        return path


def exported_rows(
    rows: ReviewRows,
    collected: Path,
    decisions: Decisions,
    row_ids: Sequence[str] | None = None,
    left_out: list[str] | None = None,
) -> Iterator[ExportedRow]:
    """Yield the rows in the order in which their contents are stored, with one row's content in memory at a time.

    collected: the generation that has the images or texts. row_ids: None for all rows. left_out: receives the ids of
    images that cannot be decoded again.
    """
    answers: dict[str, list[Answer]] = defaultdict(list)
    for answer in decisions.answers:
        answers[answer.row_id].append(answer)
    exported_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    selected: Sequence[str] = rows.ids
    if row_ids is not None:
        selected = [row_id for row_id in row_ids if rows.ids.position(row_id) is not None]
    for row_id, payload in payloads([collected], selected):
        position = rows.ids.position(row_id)
        try:
            content = image_for_others(payload, MAX_MEGAPIXELS) if isinstance(payload, bytes) else payload
        except Undecodable:
            if left_out is not None:
                left_out.append(row_id)
            continue
        if position is not None:
            yield _row(rows, position, decisions, tuple(answers.get(row_id, ())), exported_at, content)


def _row(
    rows: ReviewRows,
    position: int,
    decisions: Decisions,
    answers: tuple[Answer, ...],
    exported_at: str,
    content: bytes | str,
) -> ExportedRow:
    row_id = rows.ids[position]
    label, label_source = rows.labels[position], rows.label_sources[position]
    decision = decisions.by_row.get(row_id)
    if decision is not None and decision.label is not None and decision.kind == "label":
        label, label_source = decision.label, REVIEW_SOURCE
    suggestion, probability = suggestion_of(rows, position)
    is_reviewed = decision is not None or (label is not None and label_source == REVIEW_SOURCE)
    state: State = "labeled" if label is not None else "predicted" if suggestion is not None else "unlabeled"
    return ExportedRow(
        id=row_id,
        split=str(rows.splits[position]),
        label=label,
        label_source=label_source if label is not None else None,
        state="reviewed" if is_reviewed else state,
        suggestion=suggestion,
        suggestion_probability=probability,
        p_label_error=_number(rows.p_label_error[position]),
        decision=None if decision is None else decision.kind,
        answers=answers,
        origin=rows.origins[position],
        license=rows.licenses[position],
        attribution=rows.attributions[position],
        exported_at=exported_at,
        content=content,
    )


def suggestion_of(rows: ReviewRows, position: int) -> tuple[str | None, float | None]:
    """The model's likeliest class of a row and its probability; (None, None) where no model has predicted."""
    probabilities = np.asarray(rows.probabilities[position], dtype=np.float64)
    if not len(probabilities) or not np.isfinite(probabilities).all():
        return None, None
    likeliest = int(np.argmax(probabilities))
    return rows.classes[likeliest], _number(probabilities[likeliest])


def _number(value: Any) -> float | None:
    return round(float(value), PROBABILITY_DIGITS) if np.isfinite(value) else None

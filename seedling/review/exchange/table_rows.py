"""Rows of tables (CSV, Hugging Face datasets, image folders, attributes of FiftyOne): which of them a person answered.

An exported table has the column `exported_label`. A row has an answer if a person changed `label`, or filled `answer`,
with a class or with another answer.
In a table without this column, each label is an answer, except those that a model gave.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from seedling.errors import InputError, MissingColumn
from seedling.review.exchange.external_rows import (
    ANSWER_WORDS,
    ExternalAnswer,
    ExternalRow,
    milliseconds_of,
    row_ids_in,
)
from seedling.review.exchange.importing import name_of_person, shortened

ID_COLUMNS = ("id", "seedling_id")
PATH_COLUMNS = ("image", "file_name", "filepath", "path")
PREDICTION_COLUMNS = ("suggestion", "prediction", "predicted", "predicted_label", "model_label", "pseudo_label")
PERSON_SOURCES = frozenset({"", "human", "review"})  # label_source of labels that people gave
EXPORTED, LABEL, ANSWER = "exported_label", "label", "answer"
MIN_ANSWER_SIMILARITY = 0.8  # of a word that is a misspelled answer, not a class
LABEL_REMOVED = "label_removed_without_an_answer"


def check_columns(columns: Collection[str], file: str) -> None:
    """Raise MissingColumn if the table can have no answer."""
    if LABEL not in columns and ANSWER not in columns:
        listed = ", ".join(shortened(str(name), 30) for name in list(columns)[:20]) or "no columns"
        raise MissingColumn(
            f"{file} has neither the column 'label' nor 'answer' (it has {listed}): name the column of the reviewed "
            "labels `label`, and that of the row ids `id`."
        )


def table_row(
    values: Mapping[str, Any],
    position: str,
    contents: Callable[[], Iterable[bytes | str]],
) -> ExternalRow:
    """Return a row of a table. Raises InputError for an unknown answer.

    values: by column; an empty value is None or "". contents: reads the row's images or texts.
    """
    cells = {name: text_of(value) for name, value in values.items()}
    label, word = cells.get(LABEL), cells.get(ANSWER)
    suggestion = next((cells[name] for name in PREDICTION_COLUMNS if cells.get(name)), None)
    predictions, unusable = int(suggestion is not None), {}
    external: ExternalAnswer | None = None
    if word:
        external = _explicit(word, cells, position, suggestion)
    elif EXPORTED in values:
        if label and label != cells[EXPORTED]:
            external = ExternalAnswer("label", label)
        elif cells[EXPORTED] and not label:
            unusable = {LABEL_REMOVED: 1}
    elif label and _is_of_a_person(cells):
        external = ExternalAnswer("label", label)
    elif label:
        predictions += 1
    return ExternalRow(
        position=position,
        row_ids=row_ids_in(*(cells.get(name) for name in (*ID_COLUMNS, *PATH_COLUMNS))),
        contents=contents,
        answers=() if external is None else (_complete(external, cells),),
        predictions=predictions,
        unusable=unusable,
        suggestion=suggestion,
    )


def _explicit(word: str, cells: Mapping[str, str], position: str, suggestion: str | None) -> ExternalAnswer:
    """The answer of a filled cell `answer`. A word that is no answer is a class, unless `label` has another new one."""
    folded = word.strip().casefold().replace("-", "_")
    kind = ANSWER_WORDS.get(folded)
    if kind is None:
        listed = ", ".join(sorted(set(ANSWER_WORDS.values())))
        unknown = (
            f"{position}: the answer {shortened(word)} is unknown. Use one of {listed}, and write classes to the "
            "column `label`."
        )
        if cells.get(LABEL, "") not in {"", word, cells.get(EXPORTED)}:
            raise InputError(unknown)
        may_be_misspelled = bool(get_close_matches(folded, ANSWER_WORDS, n=1, cutoff=MIN_ANSWER_SIMILARITY))
        return ExternalAnswer("label", word, error_unless_class=unknown if may_be_misspelled else None)
    label = cells.get(LABEL) or suggestion
    if kind in {"label", "reject"} and not label:
        raise InputError(f"{position}: the answer '{word}' needs a class in the column `label`, which is empty.")
    if kind == "reject":
        return ExternalAnswer(kind, asked_label=label)
    return ExternalAnswer(kind, label if kind == "label" else None)


def _is_of_a_person(cells: Mapping[str, str]) -> bool:
    """Whether a person may have given the label, by the columns `label_source` and `state`."""
    return cells.get("label_source", "") in PERSON_SOURCES and cells.get("state", "") != "predicted"


def _complete(external: ExternalAnswer, cells: Mapping[str, str]) -> ExternalAnswer:
    """The answer with the reviewer, the note and the time that the row has."""
    return replace(
        external,
        reviewer=name_of_person(cells.get("reviewer")),
        annotation_id=cells.get("annotation_id") or cells.get("exported_at") or "",
        answered_at=milliseconds_of(cells.get("answered_at")),
        note=cells.get("note") or None,
    )


def text_of(value: Any) -> str:
    """A cell as text: "" for an empty one; whole numbers without decimals; a struct's `label`, as in FiftyOne."""
    if value is None or value != value:
        return ""
    if isinstance(value, Mapping):
        return text_of(value.get("label"))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.strip() if isinstance(value, str) else str(value)

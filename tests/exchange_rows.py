"""Six rows of texts or images that tests exchange with other tools, and the exports that the tools' files were made of.

    python tests/exchange_rows.py FOLDER

writes an export per format and modality to the folder; tests/review/exchange_files/ has scripts that read them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from seedling.dataset.generation import GenerationWriter, Modality, Row, identify
from seedling.media import images, texts
from seedling.review.decisions import Decisions, read_decisions
from seedling.review.exchange import ExchangeFormat, export_rows
from seedling.review.log import ReviewLog
from seedling.review.records import Answer, AnswerKind
from seedling.review.rows import ReviewRows, read_review_rows
from seedling.workspace import Workspace

MARKUP = '<b>&"owl"</b>'  # a class whose name is markup
CLASSES = ("cat", "dog", MARKUP)
# split, label, its source, the probability of each class
ROWS = (
    ("train", "cat", "human", (0.9, 0.1, 0.0)),
    ("train", "dog", "human", (0.7, 0.2, 0.1)),
    ("train", MARKUP, "weak:page", (0.0, 0.2, 0.8)),
    ("test", "dog", "human", (0.1, 0.6, 0.3)),
    ("pool", None, None, (0.75, 0.25, 0.0)),
    ("pool", None, None, (np.nan, np.nan, np.nan)),
)
ANSWER_IDS = ("a" * 32, "b" * 32)


@dataclass(frozen=True)
class ExchangedRows:
    """The rows with the folder of their contents, the decisions of reviewers, and their ids in the order of ROWS."""

    workspace: Path
    rows: ReviewRows
    collected: Path
    decisions: Decisions
    ids: tuple[str, ...]

    def export(self, exchange_format: ExchangeFormat, output: Path) -> Path:
        """Export all rows."""
        export_rows(exchange_format, self.rows, self.collected, self.decisions, output)
        return output


def payload(modality: Modality, number: int) -> bytes | str:
    """An image of 8 x 8 pixels of one color, or a text with a line break, a quotation mark and markup."""
    if modality == "image":
        return images.encode(np.full((8, 8, 3), (10 + 20 * number, 40, 200), np.uint8))
    return f'=Text {number}, "quoted";\n<i>second line</i> \N{LATIN SMALL LETTER E WITH ACUTE}'


def row_id(content: bytes | str) -> str:
    """The id of a content."""
    return identify(texts.content(content) if isinstance(content, str) else images.content(images.decode(content)))


def exchanged_rows(workspace: Path, modality: Modality, first: bytes | str | None = None) -> ExchangedRows:
    """Write the rows, and the answers of the reviewer anna: the second row is a cat, the fourth is bad.

    first: the content of the first row; None: that of `payload`.
    """
    collected = Workspace(workspace).generation("scrape")
    contents = [payload(modality, number) for number in range(len(ROWS))]
    contents[0] = contents[0] if first is None else first
    ids = tuple(map(row_id, contents))
    with GenerationWriter(collected, stage="scrape", modality=modality) as writer:
        for number, (split, label, source, _) in enumerate(ROWS):
            writer.keep(
                Row(ids[number], split, label=label, label_source=source, origin=f"f{number}", payload=contents[number])
            )
        writer.close(rows_in=len(ROWS))
    log = ReviewLog(workspace)
    log.append("anna", [_answer(ANSWER_IDS[0], ids[1], "cat"), _answer(ANSWER_IDS[1], ids[3], None)])
    decisions = read_decisions(Workspace(workspace).reviews)
    rows = read_review_rows(workspace, decisions.classes)
    positions = rows.ids.positions(ids)
    probabilities = np.empty((len(ROWS), len(rows.classes)), dtype=np.float32)
    columns = [CLASSES.index(name) for name in rows.classes]
    probabilities[positions] = np.array([values for *_, values in ROWS])[:, columns]
    return ExchangedRows(workspace, replace(rows, probabilities=probabilities), collected, decisions, ids)


def _answer(line_id: str, of_row: str, label: str | None) -> Answer:
    kind: AnswerKind = "bad" if label is None else "label"
    return Answer(id=line_id, reviewer="anna", row_id=of_row, question="label", answer=kind, label=label)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for kind in ("image", "text"):
        exchanged = exchanged_rows(target / f"workspace-{kind}", kind)
        for name in ExchangeFormat:
            if kind == "image" or name not in {"imagefolder", "fiftyone"}:
                exchanged.export(name, target / f"{kind}-{name}")

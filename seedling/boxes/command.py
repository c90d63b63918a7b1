"""What `seedling boxes` does: read, check, describe, and write."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path

from seedling.boxes.annotations import AnnotatedObject
from seedling.boxes.checks import CheckedAnnotations, FlaggedObject, RejectedObject, check
from seedling.boxes.label_errors import BoxIssue, detail_of
from seedling.boxes.reading import ReadingOptions, describe, frame_of, problem_sentences, read_annotations
from seedling.boxes.writing import lost_in, write_dataset
from seedling.formats import BoxFormat
from seedling.progress import terminal
from seedling.terminal.console import PrintableConsole
from seedling.terminal.counts import counted_noun

TABLE_COLUMNS = ("file", "category", "x", "y", "width", "height", "reason", "detail")


def check_boxes(
    images: Path,
    annotations: Path | None,
    options: ReadingOptions,
    *,
    form: BoxFormat | None = None,
    output: Path | None = None,
) -> CheckedAnnotations:
    """Print what was read and what is wrong with it; write the usable boxes in a format if there is one."""
    console = PrintableConsole()
    frame_of_image = cache(partial(frame_of, images))
    read = read_annotations(images, annotations, options, frame_of_image)
    checked = check(read, frame_of_image)
    for sentence in (*describe(read), *sentences_of(checked)):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    if form is not None and output is not None:
        with terminal("boxes") as progress:
            write_dataset(checked, images, output, form, progress=progress)
        written = counted_noun(len(checked.annotations.images), "image")
        console.print(f"Wrote {written} to {output}.", markup=False, highlight=False, soft_wrap=True)
        if losses := lost_in(form, checked.annotations.images):
            sentence = f"The format {form.value} cannot hold everything. Left out: {', '.join(losses)}."
            console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    return checked


def sentences_of(checked: CheckedAnnotations) -> Iterator[str]:
    """Problems of the files, and clipped, rejected and unusual boxes, each with its count and the first example."""
    yield from problem_sentences(checked.annotations)
    if checked.clipped:
        noun = "box" if checked.clipped == 1 else "boxes"
        yield f"{checked.clipped:,} {noun} clipped to the frame by a pixel or less."
    for what, examples in (
        ("rejected", _first_of_each(checked.rejected)),
        ("unusual", _first_of_each(checked.flagged)),
    ):
        for name, (count, example) in examples.items():
            yield f"{name} ({count:,} {what}), for example {example}"


def _first_of_each(listed: Sequence[RejectedObject] | Sequence[FlaggedObject]) -> dict[str, tuple[int, str]]:
    """Reason or flag → number of its objects, and the first of them as text; the most frequent first."""
    by_name: dict[str, list[str]] = {}
    for each in listed:
        name = each.reason if isinstance(each, RejectedObject) else each.flag
        box = ", ".join(f"{value:.4g}" for value in each.annotated.box)
        by_name.setdefault(name, []).append(f"{each.file}: {each.annotated.category} at {box}")
    return {name: (len(texts), texts[0]) for name, texts in sorted(by_name.items(), key=lambda item: -len(item[1]))}


def write_table(checked: CheckedAnnotations, issues: Sequence[BoxIssue], path: Path) -> None:
    """Write a CSV file with a row per rejected or unusual box, possible label error, and problem of a file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(TABLE_COLUMNS)
        for rejected in checked.rejected:
            writer.writerow([*_cells(rejected.file, rejected.annotated), rejected.reason, ""])
        for flagged in checked.flagged:
            writer.writerow([*_cells(flagged.file, flagged.annotated), flagged.flag, f"score {flagged.score:.1f}"])
        for issue in issues:
            box = issue.suggested if issue.annotated is None else issue.annotated
            assert box is not None  # noqa: S101  (each kind of issue has one of them)
            writer.writerow([*_cells(issue.file, box), issue.kind, detail_of(issue)])
        for problem in checked.annotations.problems:
            detail = f"{problem.where}: {problem.detail}" if problem.detail else problem.where
            writer.writerow(["", "", "", "", "", "", problem.kind, detail])
    PrintableConsole().print(f"Details: {path}", markup=False, highlight=False, soft_wrap=True)


def _cells(file: str, annotated: AnnotatedObject) -> list[str]:
    return [file, annotated.category, *(f"{value:.10g}" for value in annotated.box)]

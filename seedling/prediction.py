"""`seedling predict`: predictions for files, folders, tables or lines, as a table."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from seedling.config.params import load
from seedling.config.sources import TableSource
from seedling.dataset.generation import Modality
from seedling.dataset.spreadsheet import spreadsheet_cell
from seedling.errors import InputError
from seedling.files.data_files import NotRead, decode_text, files_below, read_bytes, read_first_bytes
from seedling.files.ignored_files import is_hidden
from seedling.formats import PredictionFormat, probability_column
from seedling.media import images
from seedling.models.predictor import ROWS_PER_BATCH, Answer, Predictor, Question
from seedling.progress import counted, terminal
from seedling.scrape.folder import TEXT_SUFFIXES
from seedling.scrape.items import Item
from seedling.scrape.table import NAME_COLUMNS, SET_ENCODING, read_table
from seedling.scrape.table import SUFFIXES as TABLES
from seedling.terminal.console import PrintableConsole
from seedling.terminal.output_encoding import write_utf8
from seedling.terminal.printable import printable
from seedling.workspace import Workspace

STANDARD_INPUT = "-"
MAX_BYTES = 64 * 2**20  # per file
HEADER_BYTES = 2**20  # that are enough to recognize an image without an image suffix
NO_COLUMN = "\0"  # name of no column: labels and splits of a table are ignored
MIN_ROWS_FOR_RATE = 100

Cell = str | float | bool | None
ToRecord = Callable[[Answer], dict[str, Cell]]


def predict(
    workspace: Path,
    paths: Sequence[str],
    *,
    output: Path | None,
    form: PredictionFormat | None,
    column: str | None,
    probabilities: bool,
    number: int | None,
) -> None:
    """Predicts all rows in `paths` with the accepted model, or the one of round `number`.

    Predictions go to `output` or standard output, a summary to standard error. Raises InputError if no row can be read.
    """
    output_format = form or _format_of(output)
    if output_format is PredictionFormat.parquet and output is None:
        raise InputError("Parquet cannot be written to the terminal: name a file with --output.")
    _check_output(output, paths)
    if not Workspace(workspace).models.exists():
        load(workspace)  # raises the right error if this is not a workspace
    predictor = Predictor.of(workspace, number)
    sources = list(_sources(paths, predictor.modality, column))
    console, start = PrintableConsole(stderr=True), time.perf_counter()
    errors, n_rows, abstained = Counter[str](), 0, 0
    with (
        terminal("predict") as progress,
        _writer(output_format, output, predictor.model.classes, probabilities) as write,
    ):
        rows = (row for source in sources for row in source)
        # Standard input is predicted line by line, so that a program that waits for the prediction gets it.
        batch_size = 1 if STANDARD_INPUT in paths and output is None else ROWS_PER_BATCH
        for answer in counted(predictor.answers(rows, batch_size), progress, "rows", _total(sources)):
            write(answer)
            if batch_size == 1:
                sys.stdout.flush()
            n_rows += 1
            abstained += bool(answer.abstains)
            if answer.error:
                errors[answer.error] += 1
        if n_rows == errors.total():
            raise InputError(_nothing_read(paths, errors, predictor.modality))
    skipped = [name for source in sources if isinstance(source, Files) for name in source.skipped]
    seconds = time.perf_counter() - start
    summary = _summary(predictor, n_rows, seconds, abstained, skipped, errors)
    console.print(summary, highlight=False, soft_wrap=True, style="yellow" if errors else None)


def _total(sources: Sequence[Iterable[Question]]) -> int | None:
    """The number of rows; None if a source is read as a stream."""
    files = [source for source in sources if isinstance(source, Files)]
    return sum(len(source) for source in files) if len(files) == len(sources) else None


def _summary(
    predictor: Predictor,
    n_rows: int,
    seconds: float,
    abstained: int,
    skipped: Sequence[str],
    errors: Counter[str],
) -> str:
    rate = f", {n_rows / max(seconds, 1e-9):,.0f} rows/s" if n_rows >= MIN_ROWS_FOR_RATE else ""
    summary = f"{n_rows:,} row{'' if n_rows == 1 else 's'}{rate}; {abstained:,} abstained (round {predictor.round})"
    if skipped:
        kind = "images" if predictor.modality == "image" else ".txt files"
        summary += f"; skipped {len(skipped):,} files that are not {kind}, {skipped[0]} the first"
    if errors:
        counts = ", ".join(f"{error} {count:,}" for error, count in sorted(errors.items()))
        summary += f"; {errors.total():,} could not be read: {counts}"
    return summary + "."


def _check_output(output: Path | None, paths: Sequence[str]) -> None:
    """Raises InputError if the output cannot be written, or is one of the inputs."""
    if output is None:
        return
    if (output.exists() and not output.is_file()) or output.is_symlink():
        raise InputError(f"{output} is not a regular file: name another --output, or leave it out for the terminal.")
    inputs = [path for path in paths if path != STANDARD_INPUT and Path(path).exists()]
    if output.exists() and any(output.samefile(path) for path in inputs):
        raise InputError(f"{output} is one of the inputs and would be overwritten: name another --output.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output.parent} cannot be created ({error.strerror}): name another --output.") from error
    if not os.access(output.parent, os.W_OK):
        raise InputError(f"{output.parent} is not writable: name another --output.")


def _nothing_read(paths: Sequence[str], errors: Counter[str], modality: Modality) -> str:
    reasons = ", ".join(sorted(errors)) or "there are none"
    kinds = "images, folders of them, or tables" if modality == "image" else ".txt files, folders of them, or tables"
    reads = "images" if modality == "image" else "texts"
    return f"No row of {', '.join(paths)} could be read ({reasons}): the model reads {reads}, so name {kinds}."


def _format_of(output: Path | None) -> PredictionFormat:
    if output is None:
        return PredictionFormat.csv
    suffix = output.suffix.removeprefix(".").lower()
    if suffix not in set(PredictionFormat):
        raise InputError(f"{output}: unknown format; name the file .csv, .jsonl or .parquet, or set --format.")
    return PredictionFormat(suffix)


class Files:
    """Files with one row each, read one after the other.

    skipped: names of other files in the same folder; faults: files and links that cannot be read, with the reason.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        modality: Modality,
        skipped: Sequence[str] = (),
        faults: Sequence[tuple[Path, str]] = (),
    ) -> None:
        self.paths, self.modality, self.skipped, self.faults = paths, modality, skipped, faults

    def __len__(self) -> int:
        return len(self.paths) + len(self.faults)

    def __iter__(self) -> Iterator[Question]:
        for path in self.paths:
            yield _read(path, self.modality)
        for path, fault in self.faults:
            yield Question(_as_text(path), None, fault)


def _sources(paths: Sequence[str], modality: Modality, column: str | None) -> Iterator[Iterable[Question]]:
    """The rows of each path. Raises InputError if a path does not exist."""
    for name in paths:
        path = Path(name)
        if name == STANDARD_INPUT:
            yield _lines(sys.stdin, modality)
        elif path.is_dir():
            yield _folder(path, modality)
        elif not path.is_file():
            raise InputError(f"{name} does not exist: name files, folders, tables, or - for standard input.")
        elif path.suffix.lower() in TABLES:
            yield _table(path, modality, column)
        else:
            yield Files([path], modality)


def _folder(folder: Path, modality: Modality) -> Files:
    """The files of a folder that training reads too: images by content, texts by suffix, no hidden files."""
    root, paths, skipped, faults = folder.resolve(), list[Path](), list[str](), list[tuple[Path, str]]()
    for path, fault in files_below(folder, root):
        if any(is_hidden(part) for part in path.relative_to(folder).parts):
            skipped.append(_as_text(path))
        elif fault is not None:
            faults.append((path, fault))
        elif _holds_row(path, root, modality):
            paths.append(path)
        else:
            skipped.append(_as_text(path))
    return Files(paths, modality, skipped, faults)


def _holds_row(path: Path, root: Path, modality: Modality) -> bool:
    if modality == "text":
        return path.suffix.lower() in TEXT_SUFFIXES
    if path.suffix.lower() in images.SUFFIXES:
        return True
    try:
        return images.megapixels(read_first_bytes(path, HEADER_BYTES, root)) > 0
    except OSError:  # the row gets this error
        return True


def _lines(file: TextIO, modality: Modality) -> Iterator[Question]:
    """Standard input: one text per line, or one path of an image per line."""
    if isinstance(file, io.TextIOWrapper):  # keep the bytes of a path
        file.reconfigure(encoding="utf-8-sig", errors="replace" if modality == "text" else "surrogateescape")
    for number, line in enumerate(file, start=1):
        content = line.rstrip("\r\n")
        if modality == "text":
            yield Question(f"line {number}", content)
        elif content.strip():
            yield _read(Path(content), modality)


def _table(path: Path, modality: Modality, column: str | None) -> Iterator[Question]:
    path = path.resolve()
    named = {} if column is None else {"text" if modality == "text" else "image": column}
    # model_construct: columns that are set by validation would count as named by the user, and have to exist.
    ignored = {"label": NO_COLUMN, "split": NO_COLUMN, "default_split": "pool"}
    source = TableSource.model_construct({"kind", "path", *named}, kind="table", path=path.name, **named, **ignored)
    try:
        for item in read_table(source, path.parent, modality, MAX_BYTES):
            yield _loaded(item, str(path.parent / item.origin))
    except InputError as error:  # its remedy is about params.yaml
        message = str(error).replace(NAME_COLUMNS, "Name it with --column.")
        raise InputError(message.replace(f"convert it, or {SET_ENCODING}", "convert it to UTF-8.")) from error


def _loaded(item: Item, source: str) -> Question:
    try:
        return Question(source, None if item.reason else item.load(), item.reason)
    except (OSError, ValueError):
        return Question(source, None, "unreadable")


def _read(path: Path, modality: Modality) -> Question:
    try:
        content = read_bytes(path, max_bytes=MAX_BYTES)
        return Question(_as_text(path), content if modality == "image" else decode_text(content))
    except NotRead as error:
        return Question(_as_text(path), None, str(error))
    except (OSError, ValueError):
        return Question(_as_text(path), None, "unreadable")


def _as_text(path: Path) -> str:
    """The path as text. Bytes that are not UTF-8 become replacement characters."""
    return os.fsencode(path).decode("utf-8", errors="replace")


class Write(Protocol):
    """Writes one prediction."""

    def __call__(self, answer: Answer) -> None:
        """Writes it now, or later with others."""


@contextmanager
def _writer(
    form: PredictionFormat, output: Path | None, classes: Sequence[str], probabilities: bool
) -> Iterator[Write]:
    """Writes to a temporary file beside `output`, which replaces it when all predictions are written."""
    names = [probability_column(name) for name in classes] if probabilities else []
    no_probabilities: list[float | None] = [None] * len(names)

    def to_record(answer: Answer) -> dict[str, Cell]:
        record: dict[str, Cell] = {
            name: getattr(answer, name) for name in ("source", "predicted", "confidence", "abstains", "error")
        }
        if names:
            record |= dict(zip(names, answer.probabilities or no_probabilities, strict=True))
        return record

    if output is None:
        write_utf8(sys.stdout)
        yield _to_text(form, sys.stdout, to_record, names)
        sys.stdout.flush()
        return
    partial = output.with_name(f".{output.name}.partial")
    try:
        if form is PredictionFormat.parquet:
            with _to_parquet(partial, to_record, names) as write:
                yield write
        else:
            with partial.open("w", encoding="utf-8", newline="") as file:
                yield _to_text(form, file, to_record, names)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


def _to_text(form: PredictionFormat, file: TextIO, to_record: ToRecord, names: Sequence[str]) -> Write:
    if form is PredictionFormat.jsonl:
        return lambda answer: print(json.dumps(to_record(answer), ensure_ascii=False), file=file)
    columns = ["source", "predicted", "confidence", "abstains", "error", *names]
    writer, has_header = csv.DictWriter(file, columns, lineterminator="\n"), False
    in_terminal = file.isatty()

    def as_cell(value: Cell) -> Cell:
        cell: Cell = spreadsheet_cell(value)
        return printable(cell) if in_terminal and isinstance(cell, str) else cell

    def write(answer: Answer) -> None:
        nonlocal has_header
        if not has_header:  # only now: if no row can be read, nothing is written
            writer.writeheader()
        has_header = True
        writer.writerow({name: as_cell(value) for name, value in to_record(answer).items()})

    return write


@contextmanager
def _to_parquet(path: Path, to_record: ToRecord, names: Sequence[str]) -> Iterator[Write]:
    columns: list[tuple[str, pa.DataType]] = [("source", pa.string()), ("predicted", pa.string())]
    columns += [("confidence", pa.float32()), ("abstains", pa.bool_()), ("error", pa.string())]
    columns += [(name, pa.float32()) for name in names]
    schema = pa.schema(columns)
    buffer: list[dict[str, Cell]] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def write(answer: Answer) -> None:
            buffer.append(to_record(answer))
            if len(buffer) >= 4 * ROWS_PER_BATCH:
                writer.write_table(pa.Table.from_pylist(buffer, schema=schema))
                buffer.clear()

        yield write
        writer.write_table(pa.Table.from_pylist(buffer, schema=schema))

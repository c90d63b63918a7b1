"""`seedling predict`: files, folders, tables or lines in; a table of answers out."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from seedling.config.params import load
from seedling.config.sources import TableSource
from seedling.dataset.generation import Modality
from seedling.dataset.spreadsheet import spreadsheet_cell
from seedling.errors import InputError
from seedling.files.data_files import NotRead, decode_text, files_below, read_bytes, read_first_bytes
from seedling.files.ignored_files import is_hidden
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

STANDARD_INPUT = "-"
MAX_BYTES = 64 * 2**20  # of a file
HEADER_BYTES = 2**20  # that tell whether a file without a suffix of images is one
NO_COLUMN = "\0"  # a table's labels and splits are none of the model's business


class Format(StrEnum):
    """Of the answers."""

    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"


def predict(
    workspace: Path,
    paths: Sequence[str],
    *,
    output: Path | None,
    form: Format | None,
    column: str | None,
    probabilities: bool,
    number: int | None,
) -> None:
    """Asks the accepted model, or the one of round `number`, about all that `paths` name; writes to `output` or to standard output, and what was
    done to standard error. Raises InputError where nothing could be asked.
    """
    chosen = form or _format_of(output)
    if chosen is Format.parquet and output is None:
        raise InputError("Parquet cannot be written to the terminal: name a file with --output.")
    _check_output(output, paths)
    if not (workspace / "models").exists():
        load(workspace)  # which says it where this is no workspace
    predictor = Predictor.of(workspace, number)
    listed = list(_sources(paths, predictor.modality, column))
    console, began = PrintableConsole(stderr=True), time.perf_counter()
    errors, done, abstained = Counter[str](), 0, 0
    with terminal("predict") as progress, _writer(chosen, output, predictor.model.classes, probabilities) as write:
        rows = (row for source in listed for row in source)
        total = (
            sum(len(one) for one in listed if isinstance(one, Files))
            if all(isinstance(one, Files) for one in listed)
            else None
        )
        at_once = (
            1 if STANDARD_INPUT in paths and output is None else ROWS_PER_BATCH
        )  # who waits for a line wants its answer
        for answer in counted(predictor.answers(rows, at_once), progress, "rows", total):
            write(answer)
            if at_once == 1:
                sys.stdout.flush()
            done += 1
            abstained += bool(answer.abstains)
            if answer.error:
                errors[answer.error] += 1
        if done == errors.total():
            raise InputError(_nothing(paths, errors, predictor.modality))
    rate = done / max(time.perf_counter() - began, 1e-9)
    said = f"{done:,} rows, {rate:,.0f} rows/s; {abstained:,} abstained (round {predictor.round})"
    if skipped := [name for source in listed if isinstance(source, Files) for name in source.skipped]:
        kind = "images" if predictor.modality == "image" else ".txt files"
        said += f"; {len(skipped):,} files that are no {kind} were left out, {skipped[0]} the first"
    if errors:
        said += f"; {errors.total():,} could not be read: " + ", ".join(
            f"{one} {count:,}" for one, count in sorted(errors.items())
        )
    console.print(said + ".", highlight=False, soft_wrap=True, style="yellow" if errors else None)


def _check_output(output: Path | None, paths: Sequence[str]) -> None:
    """Before any work. Raises InputError for a place that cannot be written, or that is asked about."""
    if output is None:
        return
    if (output.exists() and not output.is_file()) or output.is_symlink():
        raise InputError(f"{output} is no plain file: name another --output, or leave it out for the terminal.")
    if any(one != STANDARD_INPUT and Path(one).exists() and output.exists() and output.samefile(one) for one in paths):
        raise InputError(f"{output} is one of the inputs, which would be lost: name another --output.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output.parent} cannot be made ({error.strerror}): name another --output.") from error
    if not os.access(output.parent, os.W_OK):
        raise InputError(f"{output.parent} cannot be written: name another --output.")


def _nothing(paths: Sequence[str], errors: Counter[str], modality: Modality) -> str:
    why = ", ".join(sorted(errors)) or "there is none"
    kinds = "images, folders of them, or tables" if modality == "image" else ".txt files, folders of them, or tables"
    reads = "images" if modality == "image" else "texts"
    return f"No row of {', '.join(paths)} could be read ({why}): the model reads {reads}, so name {kinds}."


def _format_of(output: Path | None) -> Format:
    if output is None:
        return Format.csv
    suffix = output.suffix.removeprefix(".").lower()
    if suffix not in set(Format):
        raise InputError(f"{output}: name it .csv, .jsonl or .parquet, or say --format.")
    return Format(suffix)


class Files:
    """Files that hold a row each; each is read when its turn comes. skipped: names of others that lie beside them;
    faults: files and links that are not read, each with its reason.
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
            yield Question(_named(path), None, fault)


def _sources(paths: Sequence[str], modality: Modality, column: str | None) -> Iterator[Iterable[Question]]:
    """Raises InputError for a path that is not there."""
    for one in paths:
        path = Path(one)
        if one == STANDARD_INPUT:
            yield _lines(sys.stdin, modality)
        elif path.is_dir():
            yield _folder(path, modality)
        elif not path.is_file():
            raise InputError(f"{one} does not exist: name files, folders, tables, or - for standard input.")
        elif path.suffix.lower() in TABLES:
            yield _table(path, modality, column)
        else:
            yield Files([path], modality)


def _folder(folder: Path, modality: Modality) -> Files:
    """What training would read of the folder: images by their content, texts by their suffix; nothing hidden."""
    root, paths, skipped, faults = folder.resolve(), list[Path](), list[str](), list[tuple[Path, str]]()
    for path, fault in files_below(folder, root):
        if any(is_hidden(part) for part in path.relative_to(folder).parts):
            skipped.append(_named(path))
        elif fault is not None:
            faults.append((path, fault))
        elif _holds_row(path, root, modality):
            paths.append(path)
        else:
            skipped.append(_named(path))
    return Files(paths, modality, skipped, faults)


def _holds_row(path: Path, root: Path, modality: Modality) -> bool:
    if modality == "text":
        return path.suffix.lower() in TEXT_SUFFIXES
    if path.suffix.lower() in images.SUFFIXES:
        return True
    try:
        return images.megapixels(read_first_bytes(path, HEADER_BYTES, root)) > 0
    except OSError:  # asked about, and answered with the reason
        return True


def _lines(file: TextIO, modality: Modality) -> Iterator[Question]:
    """Standard input: a text a line, or the path of an image a line."""
    if isinstance(file, io.TextIOWrapper):  # bytes of a path are kept as they are
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
    unread = {
        "label": NO_COLUMN,
        "split": NO_COLUMN,
        "default_split": "pool",
    }  # not as if a person had named them: they need not be there
    source = TableSource.model_construct({"kind", "path", *named}, kind="table", path=path.name, **named, **unread)
    try:
        for item in read_table(source, path.parent, modality, MAX_BYTES):
            yield _loaded(item, str(path.parent / item.origin))
    except InputError as error:  # whose remedy is that of a source
        said = str(error).replace(NAME_COLUMNS, "Name it with --column.")
        raise InputError(said.replace(f"convert it, or {SET_ENCODING}", "convert it to UTF-8.")) from error


def _loaded(item: Item, source: str) -> Question:
    try:
        return Question(source, None if item.reason else item.load(), item.reason)
    except (OSError, ValueError):
        return Question(source, None, "unreadable")


def _read(path: Path, modality: Modality) -> Question:
    try:
        content = read_bytes(path, max_bytes=MAX_BYTES)
        return Question(_named(path), content if modality == "image" else decode_text(content))
    except NotRead as error:
        return Question(_named(path), None, str(error))
    except (OSError, ValueError):
        return Question(_named(path), None, "unreadable")


def _named(path: Path) -> str:
    """The path as text: what is no UTF-8 in it becomes a sign that stands for it."""
    return os.fsencode(path).decode("utf-8", errors="replace")


class Write(Protocol):
    """Takes one answer."""

    def __call__(self, answer: Answer) -> None:
        """Writes it, now or with others."""


@contextmanager
def _writer(form: Format, output: Path | None, classes: Sequence[str], probabilities: bool) -> Iterator[Write]:
    """Answers go to a file beside `output`, which takes its place when all are there."""
    names = [f"p_{name}" for name in classes] if probabilities else []
    nobody: list[float | None] = [None] * len(names)

    def plain(answer: Answer) -> dict[str, Any]:
        found = {name: getattr(answer, name) for name in ("source", "predicted", "confidence", "abstains", "error")}
        if names:
            found |= dict(zip(names, answer.probabilities or nobody, strict=True))
        return found

    if output is None:
        write_utf8(sys.stdout)
        yield _to_text(form, sys.stdout, plain, names)
        sys.stdout.flush()
        return
    partial = output.with_name(f".{output.name}.partial")
    try:
        if form is Format.parquet:
            with _to_parquet(partial, plain, names) as write:
                yield write
        else:
            with partial.open("w", encoding="utf-8", newline="") as file:
                yield _to_text(form, file, plain, names)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


def _to_text(form: Format, file: TextIO, plain: Any, names: Sequence[str]) -> Write:
    if form is Format.jsonl:
        return lambda answer: print(json.dumps(plain(answer), ensure_ascii=False), file=file)
    columns = ["source", "predicted", "confidence", "abstains", "error", *names]
    writer, begun = csv.DictWriter(file, columns, lineterminator="\n"), False
    in_terminal = file.isatty()

    def shown(value: Any) -> Any:
        cell = spreadsheet_cell(value)
        return printable(cell) if in_terminal and isinstance(cell, str) else cell

    def write(answer: Answer) -> None:
        nonlocal begun
        if not begun:  # not before there is an answer: bad input may come first
            writer.writeheader()
        begun = True
        writer.writerow({name: shown(value) for name, value in plain(answer).items()})

    return write


@contextmanager
def _to_parquet(path: Path, plain: Any, names: Sequence[str]) -> Iterator[Write]:
    kinds = {"source": pa.string(), "predicted": pa.string(), "confidence": pa.float32(), "abstains": pa.bool_()}
    schema = pa.schema([*kinds.items(), ("error", pa.string()), *((name, pa.float32()) for name in names)])
    held: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def write(answer: Answer) -> None:
            held.append(plain(answer))
            if len(held) >= 4 * ROWS_PER_BATCH:
                writer.write_table(pa.Table.from_pylist(held, schema=schema))
                held.clear()

        yield write
        writer.write_table(pa.Table.from_pylist(held, schema=schema))

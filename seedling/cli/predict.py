"""The command `seedling predict`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import Debug, Workspace, explained


class AnswerFormat(StrEnum):
    """Of a file of answers."""

    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"


def predict(
    paths: Annotated[
        list[str],
        typer.Argument(help="Images, texts, folders, tables (CSV, TSV, JSONL, Parquet); - is standard input."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .csv, .jsonl or .parquet file.", show_default="the terminal"),
    ] = None,
    form: Annotated[
        AnswerFormat | None,
        typer.Option("--format", help="Of the answers.", show_default="by the file's name, else csv"),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="A table's column of texts or images.", show_default="text or image")
    ] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Every class's probability too.")] = False,
    number: Annotated[int | None, typer.Option("--round", help="Whose model.", show_default="the accepted one")] = None,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """What the model says of new images or texts, how sure it is, and where it had better abstain."""
    with explained(debug):
        from seedling.prediction import Format
        from seedling.prediction import predict as work

        form_of = None if form is None else Format(form.value)
        work(
            workspace.resolve(),
            paths,
            output=output,
            form=form_of,
            column=column,
            probabilities=probabilities,
            number=number,
        )

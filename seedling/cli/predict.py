"""The command `seedling predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import Debug, Round, Workspace, explained
from seedling.formats import PredictionFormat


def predict(  # noqa: PLR0913  (Typer makes an option of each argument)
    paths: Annotated[
        list[str],
        typer.Argument(help="Images, texts, folders or tables (CSV, TSV, JSONL, Parquet); - reads standard input."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write: .csv, .jsonl or .parquet.", show_default="standard output"),
    ] = None,
    form: Annotated[
        PredictionFormat | None,
        typer.Option("--format", help="Format of the predictions.", show_default="by the file's name, else csv"),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of a table that holds the texts or images.", show_default="text or image")
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the probability of each class.")
    ] = False,
    number: Round = None,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Predict the classes of new images or texts, with confidence, and whether the model abstains."""
    with explained(debug):
        from seedling.prediction import predict as predict_paths

        predict_paths(
            workspace.resolve(),
            paths,
            output=output,
            form=form,
            column=column,
            probabilities=probabilities,
            number=number,
        )

"""The command `seedling review`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import AllowHost, Debug, Workspace, explained


class Split(StrEnum):
    """The rows that are reviewed."""

    train = "train"
    test = "test"


class FileFormat(StrEnum):
    """The format of an export or an import."""

    label_studio = "label_studio"
    csv = "csv"
    huggingface = "huggingface"
    parquet = "parquet"
    imagefolder = "imagefolder"
    fiftyone = "fiftyone"


def review(  # noqa: PLR0913  (the options of the command)
    reviewer: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a reviewer; each one gets an address. May be repeated.", show_default="your user name"
        ),
    ] = None,
    terminal: Annotated[bool, typer.Option("--terminal", help="Review texts in this terminal.")] = False,
    split: Annotated[Split, typer.Option(help="Rows to review: labeled rows and the pool, or the test split.")] = (
        Split.train
    ),
    row: Annotated[str | None, typer.Option(help="Id of the row to begin with, or its first 8 or more digits.")] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Read new files of data/ and visit web sources before the review.")
    ] = False,
    overlap: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of rows that a second reviewer gets, too.")
    ] = None,
    export_path: Annotated[
        Path | None, typer.Option("--export", help="Folder to write the rows to for another tool, instead of a review.")
    ] = None,
    import_path: Annotated[
        Path | None, typer.Option("--import", help="File or folder of another tool to read answers from.")
    ] = None,
    file_format: Annotated[
        FileFormat | None,
        typer.Option("--format", help="Format of --export or --import.", show_default="csv, or detected"),
    ] = None,
    add_classes: Annotated[
        bool, typer.Option("--add-classes", help="Add classes that an import has and the workspace does not.")
    ] = False,
    map_class: Annotated[
        list[str] | None,
        typer.Option(help="Class of a label in an import: LABEL=CLASS. May be repeated.", metavar="LABEL=CLASS"),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 is any free port.")] = 4310,
    open_browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    allow_host: AllowHost = None,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Review rows by keyboard: check labels, label the pool, and compare duplicates. The next run uses the answers."""
    with explained(debug):
        from seedling.cli.reviewing import ReviewCommand

        command = ReviewCommand(
            workspace=workspace.resolve(),
            reviewers=tuple(reviewer or ()),
            split=split.value,
            row_id=row,
            overlap=overlap,
        )
        command.prepare(refresh=refresh)
        if export_path is not None:
            command.export(export_path, "csv" if file_format is None else file_format.value)
        elif import_path is not None:
            chosen = None if file_format is None else file_format.value
            command.import_answers(import_path, chosen, map_class or (), add=add_classes)
        elif terminal:
            command.review_in_terminal()
        else:
            from seedling.extras import require
            from seedling.serving.http_clients import checked_hosts

            require("serve", "`seedling review`")
            command.serve(host, port, checked_hosts(allow_host or ()), open_browser=open_browser)

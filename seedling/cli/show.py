"""The command `seedling show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from seedling.cli.options import Debug, Workspace, explained


def show(
    stage: Annotated[Literal["augment", "synthesize"], typer.Argument(help="Whose rows: augment or synthesize.")],
    families: Annotated[int, typer.Option(min=1, max=500, help="Parents that are shown.")] = 24,
    children: Annotated[int, typer.Option(min=1, max=100, help="Of each.")] = 6,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """A contact sheet: parents beside what was made of them, with each one's recipe."""
    with explained(debug):
        from seedling.config.params import load
        from seedling.media.personal_data import personal_data_shown
        from seedling.report.contact_sheet import write_contact_sheet
        from seedling.versioning.ledger import open_ledger

        with personal_data_shown(load(workspace).reports.show_personal_data):
            path = write_contact_sheet(workspace.resolve(), stage, families, children)
        print(f"The contact sheet: {path.as_uri()}")
        if stage in open_ledger(workspace.resolve()).states():
            print(f"Its inputs have changed since: `seedling stage {stage}` makes the rows anew.")

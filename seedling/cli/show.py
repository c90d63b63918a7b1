"""The command `seedling show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from seedling.cli.options import Debug, Workspace, explained


def show(
    stage: Annotated[Literal["augment", "synthesize"], typer.Argument(help="Stage: augment or synthesize.")],
    sources: Annotated[int, typer.Option(min=1, max=500, help="Number of source rows to show.")] = 24,
    per_source: Annotated[int, typer.Option(min=1, max=100, help="Number of rows to show per source row.")] = 6,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Write a contact sheet: source rows next to the rows that a stage generated from them, with their recipes."""
    with explained(debug):
        from seedling.config.params import load
        from seedling.media.personal_data import personal_data_shown
        from seedling.report.contact_sheet import write_contact_sheet
        from seedling.versioning.ledger import open_ledger

        with personal_data_shown(load(workspace).reports.show_personal_data):
            path = write_contact_sheet(workspace.resolve(), stage, sources, per_source)
        print(f"Contact sheet: {path.as_uri()}")
        if stage in open_ledger(workspace.resolve()).states():
            print(f"The inputs have changed since: run `seedling stage {stage}` to generate these rows again.")

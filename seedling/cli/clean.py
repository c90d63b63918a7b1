"""The command `seedling clean`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import Debug, Workspace, explained


def clean(
    keep: Annotated[int, typer.Option(min=0, help="Number of recent runs to keep, with their experiments.")] = 20,
    days: Annotated[
        float,
        typer.Option(min=0, help="Maximum age in days of quarantined rows, feature caches and Prefect flow runs."),
    ] = 30.0,
    megabytes: Annotated[float, typer.Option(min=0, help="Maximum size of the feature caches in MB.")] = 1000.0,
    all_commits: Annotated[
        bool, typer.Option("--all-commits", help="Keep what any commit needs, not only branches and tags.")
    ] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Remove the files; without this option they are only listed.")
    ] = False,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Remove old runs and files that no kept run needs; without --apply, only list them."""
    with explained(debug):
        from seedling.cleaning import Keep, show_plan
        from seedling.cleaning import clean as clean_workspace
        from seedling.flows.prefect_cleaning import PrefectFlowRuns

        limits = Keep(
            runs=keep,
            quarantine_days=days,
            feature_days=days,
            feature_megabytes=megabytes,
            flow_run_days=days,
            all_commits=all_commits,
        )
        show_plan(clean_workspace(workspace.resolve(), limits, apply=apply, flow_runs=PrefectFlowRuns()), applied=apply)

"""The command `seedling clean`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import Debug, Workspace, explained


def clean(
    keep: Annotated[int, typer.Option(min=0, help="How many of the last runs are kept, with their experiments.")] = 20,
    days: Annotated[
        float, typer.Option(min=0, help="Quarantined rows, feature caches and Prefect flow runs older than this go.")
    ] = 30.0,
    megabytes: Annotated[float, typer.Option(min=0, help="The feature caches may have.")] = 1000.0,
    all_commits: Annotated[
        bool, typer.Option("--all-commits", help="Keep what any commit needs, not only the tips of branches, and tags.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Remove it; without this, only show what would go.")] = False,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Removes old runs and what no kept run needs; shows what it would free unless --apply is given."""
    with explained(debug):
        from seedling.cleaning import Keep, show_plan
        from seedling.cleaning import clean as work
        from seedling.flows.prefect_cleaning import PrefectFlowRuns

        limits = Keep(
            runs=keep,
            quarantine_days=days,
            feature_days=days,
            feature_megabytes=megabytes,
            flow_run_days=days,
            all_commits=all_commits,
        )
        show_plan(work(workspace.resolve(), limits, apply=apply, flow_runs=PrefectFlowRuns()), applied=apply)

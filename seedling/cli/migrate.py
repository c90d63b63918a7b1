"""The command `seedling migrate`."""

from __future__ import annotations

from pathlib import Path

from seedling.cli.options import Debug, Workspace, explained
from seedling.terminal.printable import printable


def migrate(workspace: Workspace = Path(), debug: Debug = False) -> None:
    """Update params.yaml, gates.yaml, dvc.yaml and prefect.yaml of a workspace from an earlier version."""
    with explained(debug):
        from seedling.lock import workspace_lock
        from seedling.migration import migrate as migrate_workspace

        folder = workspace.resolve()
        with workspace_lock(folder):
            changes = migrate_workspace(folder)
        for change in changes:
            print(printable(change))
        if changes:
            print("Every stage runs again. Next: git diff, git commit, and seedling run")
        else:
            print("The workspace is up to date: there is nothing to migrate.")

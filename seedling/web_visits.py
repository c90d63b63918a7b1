"""Visits to the web sources, which a scheduled run makes before it checks which stages are out of date.

A visit has a name, `scrape.as_of`. The name is written to params.yaml only if the visit changed the rows, so a visit
without changes modifies no file that DVC or git tracks.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from seedling.config.params import load, set_value
from seedling.config.sources import visited_sources
from seedling.errors import DamagedFile, GateFailed
from seedling.records.visits import OpenVisit, VisitState
from seedling.versioning.ledger import Ledger, Outcome
from seedling.workspace import Workspace


def has_open_visit(workspace: Path) -> bool:
    """Whether an earlier visit was interrupted, or its rows failed the gate."""
    return Workspace(workspace).open_visit.is_file()


def visit_sources(ledger: Ledger) -> Outcome | None:
    """Run scrape under the name of a new visit; return its outcome, or None if the rows did not change.

    An interrupted visit continues under its name. Raises the errors of scrape.
    """
    snapshot = ledger.snapshot
    assert snapshot is not None  # noqa: S101  (a run takes one)
    workspace, paths = snapshot.workspace, Workspace(snapshot.workspace)
    if not visited_sources(load(snapshot.folder).scrape.sources):
        paths.open_visit.unlink(missing_ok=True)
        return None
    stopped_name = _stopped_visit(workspace)
    name = stopped_name or datetime.now(UTC).isoformat(timespec="seconds")
    params_before = Workspace(snapshot.folder).params_file.read_bytes()
    as_of_before = load(snapshot.folder).scrape.as_of
    _keep_open(workspace, name, "unfinished")
    set_value(snapshot.folder, ["scrape", "as_of"], name)
    try:
        outcome = ledger.run("scrape", visit=True)
    except GateFailed:
        _keep_open(workspace, name, "refused")
        raise
    # An interrupted visit may have been recorded under its name already, so the name must stay.
    if outcome.how == "unchanged" and stopped_name is None:
        from seedling.scrape.visits import rename_visit

        Workspace(snapshot.folder).params_file.write_bytes(params_before)
        rename_visit(load(snapshot.folder).scrape.sources, paths.crawl_stores, name, as_of_before)
    else:
        set_value(workspace, ["scrape", "as_of"], name)
    paths.open_visit.unlink(missing_ok=True)
    return None if outcome.how == "unchanged" else outcome


def _stopped_visit(workspace: Path) -> str | None:
    """Return the name of an interrupted visit; None if there is none."""
    path = Workspace(workspace).open_visit
    if not path.is_file():
        return None
    try:
        visit = OpenVisit.read(path)
    except DamagedFile:  # truncated by a kill; a new visit requests the same pages again
        return None
    return visit.as_of if visit.state == "unfinished" else None


def _keep_open(workspace: Path, name: str, state: VisitState) -> None:
    OpenVisit(as_of=name, state=state).write(Workspace(workspace).open_visit)

"""Finds the address of a workspace's pages: from params.yaml, or from a running page server."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from seedling.config.monitoring_params import ReportsParams
from seedling.workspace import DATA_PAGE, GATES_PAGE, HISTORY_PAGE, REPORT_PAGE, Workspace

PAGES = {"Report": REPORT_PAGE, "Data": DATA_PAGE, "History": HISTORY_PAGE, "Gates": GATES_PAGE}
PROBE_SECONDS = 5.0
MAX_PROBE_BYTES = 100_000


def slug(name: str) -> str:
    """Converts a workspace's name to lower case, digits and dashes, for page addresses and Prefect artifact keys."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "workspace"


def page_links(workspace: Path, params: ReportsParams) -> dict[str, str]:
    """Maps each existing page to its http(s) address; empty if no page server is known."""
    base_url = workspace_url(workspace, params)
    if base_url is None:
        return {}
    return {
        title: f"{base_url}/{name}" for title, name in PAGES.items() if (Workspace(workspace).reports / name).is_file()
    }


def workspace_url(workspace: Path, params: ReportsParams) -> str | None:
    """Returns the base URL of the workspace's pages: from params, else of a running page server, else None."""
    if params.base_url:  # the layout is that of serve-reports and of the store
        return f"{params.base_url}/{quote(slug(workspace.resolve().name))}"
    return running_server_url(workspace)


def running_server_url(workspace: Path) -> str | None:
    """Returns the workspace's address at a running `seedling serve-reports` or `seedling schedule`, else None."""
    try:
        record = json.loads(Workspace(workspace).report_server.read_text(encoding="utf-8"))
        probes, url, instance = record["probes"], str(record["url"]), str(record["instance"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return url if any(_instance_at(str(probe)) == instance for probe in probes) else None


def _instance_at(probe: str) -> str | None:
    """Returns the id of the page server at the address, or None if there is no page server."""
    if not probe.startswith("http://"):
        return None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach this machine
    try:
        with opener.open(probe, timeout=PROBE_SECONDS) as answer:
            served = json.loads(answer.read(MAX_PROBE_BYTES))
    except (OSError, ValueError, urllib.error.URLError):
        return None
    return str(served.get("instance")) if isinstance(served, Mapping) else None


def write_server_file(workspace: Path, *, url: str, probes: Sequence[str], instance: str) -> None:
    """Records the address of the workspace's pages, for runs that end while the server runs.

    instance: the server's id; probes: addresses at which the server returns it. A run in another container uses the
    second one.
    """
    path = Workspace(workspace).report_server
    path.parent.mkdir(parents=True, exist_ok=True)
    replacement = path.with_name(f"{path.name}.{os.getpid()}")
    replacement.write_text(
        json.dumps({"url": url, "probes": list(probes), "instance": instance}) + "\n", encoding="utf-8"
    )
    replacement.replace(path)


def remove_server_file(workspace: Path, instance: str) -> None:
    """Removes the record, unless another server has replaced it."""
    path = Workspace(workspace).report_server
    try:
        if json.loads(path.read_text(encoding="utf-8")).get("instance") == instance:
            path.unlink()
    except (OSError, ValueError, AttributeError):
        return

"""Where a workspace's pages can be opened: the address from params.yaml, or that of a page server that runs."""

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

PAGES = {"Report": "report.html", "Data": "data.html", "History": "history.html", "Gates": "gates.html"}
SERVER_FILE = Path(".seedling", "report-server.json")
PROBE_SECONDS = 5.0
MAX_PROBE_BYTES = 100_000


def slug(name: str) -> str:
    """A workspace's name in lower case, digits and dashes, as in the addresses of its pages and in Prefect's artifact keys."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "workspace"


def page_links(workspace: Path, params: ReportsParams) -> dict[str, str]:
    """Page → http(s) address, of the pages that exist; empty where no page server is known."""
    base_url = workspace_url(workspace, params)
    if base_url is None:
        return {}
    return {title: f"{base_url}/{name}" for title, name in PAGES.items() if (workspace / "reports" / name).is_file()}


def workspace_url(workspace: Path, params: ReportsParams) -> str | None:
    """The address below which the workspace's pages are: from params, else of a running page server; None where neither is."""
    if params.base_url:
        return (
            f"{params.base_url}/{quote(slug(workspace.resolve().name))}"  # as serve-reports and the store lay them out
        )
    return running_server_url(workspace)


def running_server_url(workspace: Path) -> str | None:
    """The workspace's address at `seedling serve-reports` or `seedling schedule`, where one answers for it now."""
    try:
        record = json.loads((workspace / SERVER_FILE).read_text(encoding="utf-8"))
        probes, url, instance = record["probes"], str(record["url"]), str(record["instance"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return url if any(_instance_at(str(probe)) == instance for probe in probes) else None


def _instance_at(probe: str) -> str | None:
    """Which page server answers at the address; None where none does."""
    if not probe.startswith("http://"):
        return None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy knows nothing of this machine
    try:
        with opener.open(probe, timeout=PROBE_SECONDS) as answer:
            served = json.loads(answer.read(MAX_PROBE_BYTES))
    except (OSError, ValueError, urllib.error.URLError):
        return None
    return str(served.get("instance")) if isinstance(served, Mapping) else None


def write_server_file(workspace: Path, *, url: str, probes: Sequence[str], instance: str) -> None:
    """Notes where the workspace's pages are served, for runs that end while they are.

    probes: addresses at which the server says which one it is, the instance; a run in another container needs the second.
    """
    path = workspace / SERVER_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    replacement = path.with_name(f"{path.name}.{os.getpid()}")
    replacement.write_text(
        json.dumps({"url": url, "probes": list(probes), "instance": instance}) + "\n", encoding="utf-8"
    )
    replacement.replace(path)


def remove_server_file(workspace: Path, instance: str) -> None:
    """Takes the note back, unless another server has written its own since."""
    path = workspace / SERVER_FILE
    try:
        if json.loads(path.read_text(encoding="utf-8")).get("instance") == instance:
            path.unlink()
    except (OSError, ValueError, AttributeError):
        return

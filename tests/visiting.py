"""Helpers for tests of sources on the web."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loopback import Site, image

from seedling.config.params import ScrapeParams, WorkspaceConfig
from seedling.scrape import scrape

IMAGES, TEXTS = WorkspaceConfig(modality="image"), WorkspaceConfig(modality="text")
QUICK = {"allow_private_hosts": True, "requests_per_second": 200}


def run(folder: Path, config: WorkspaceConfig, *sources: dict[str, Any], as_of: str | None = None, **more: Any) -> Path:
    (folder / "data").mkdir(exist_ok=True)
    params = ScrapeParams.model_validate({"sources": list(sources), "as_of": as_of, **more})
    scrape(params, config, data=folder / "data", output=folder / "out", crawl_stores=folder / "web")
    return folder / "out"


def gallery(server: Site) -> None:
    """Serve two pages with three images, each with text."""
    server.routes |= {
        "/": '<figure id="a"><img src="a.png" alt="a black cat"><b>cat</b></figure><figure><img src="b.png" alt="my dog"></figure>'
        '<a rel="next" href="/2">next</a><a rel="license" href="https://licenses.example/by">by</a><i rel="author">Ada</i>',
        "/2": '<figure><img src="c.png" alt="nobody" title="a dog"><b>dog</b></figure>',
        **{f"/{name}.png": image(level) for name, level in (("a", 10), ("b", 60), ("c", 110))},
    }


CRAWL = {"kind": "crawl", "item": "figure", **QUICK}

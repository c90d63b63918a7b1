"""The documentation as a site: it is complete, asks no other host for anything, and can be searched from a folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).parents[1]
TABS = ["Home", "Quickstart", "How it works", "Guides", "Reference", "Benchmarks", "Architecture", "Glossary"]
RESOURCE_ATTRIBUTES = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "object": "data",
}


class Resources(HTMLParser):
    """Collects what a browser loads with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes the address of a script, a style sheet, an image or a frame."""
        address = dict(attrs).get(RESOURCE_ATTRIBUTES.get(tag, ""))
        if address:
            self.addresses.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def page(site: Path) -> Iterator[Any]:
    """A page of Chromium that may open files of the site and nothing else."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    assert path, "Chromium is needed: apt-get install chromium"
    outside: list[str] = []
    problems: list[str] = []

    def decide(route: Any) -> None:
        if route.request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-quic"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        page.route("**/*", decide)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto((site / "index.html").as_uri())
        yield page
        browser.close()
    assert outside == []
    assert problems == []


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    """Scripts, styles, images and fonts are files of the site, on every page and in every style sheet."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    loaded = 0
    for path in pages:
        resources = Resources()
        resources.feed(path.read_text(encoding="utf-8"))
        loaded += len(resources.addresses)
        assert [address for address in resources.addresses if re.match(r"(https?:)?//", address)] == [], path.name
    assert loaded > len(pages)
    for path in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)]*", path.read_text(encoding="utf-8")) == [], (
            path
        )


def test_the_navigation_leads_to_every_part(page: Any) -> None:
    """A click on each tab opens a page with a heading; no request leaves the folder."""
    from playwright.sync_api import expect

    tabs = page.locator(".md-tabs__link")
    assert [text.strip() for text in tabs.all_inner_texts()] == TABS
    for title in TABS:
        page.locator(".md-tabs__link", has_text=re.compile(rf"^\s*{title}\s*$")).click()
        expect(page.locator(".md-tabs__item--active")).to_have_text(re.compile(title))
        expect(page.get_by_role("heading", level=1)).to_be_visible()


def test_the_search_finds_a_word_without_a_server(page: Any) -> None:
    """From a folder: the pages on pseudo-labels are found by a word, and a click opens one."""
    from playwright.sync_api import expect

    page.keyboard.press("/")
    page.get_by_role("textbox", name="Search").press_sequentially("label propagation")
    results = page.locator(".md-search-result__link")
    expect(results.first).to_be_visible()
    assert any("pseudo" in text.lower() for text in results.all_inner_texts())
    results.first.click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert page.url.startswith("file:") and "index.html" not in page.url.rpartition("/")[2].partition("?")[0]


def test_benchmarks_are_charts_that_fit_a_phone(page: Any, site: Path) -> None:
    """Nine charts with text in them, in light and dark colors, and no page that is wider than the screen."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto((site / "benchmarks.html").as_uri())
    charts = page.locator("figure.chart svg")
    assert charts.count() == 9
    assert all(chart.locator("text").count() > 3 for chart in charts.all())
    colors = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.reload()
        colors.append(page.locator("figure.chart svg text").first.evaluate("text => getComputedStyle(text).fill"))
    assert colors[0] != colors[1]
    for name in ("index", "benchmarks", "how-it-works", "params", "cli"):
        page.goto((site / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name


def test_every_command_and_public_function_has_its_reference(site: Path) -> None:
    """The pages that are generated: a heading per command with its options, and the arguments of `seedling.grow`."""
    commands = (site / "cli.html").read_text(encoding="utf-8")
    for name in ("run", "init", "serve-reports", "ablate"):
        assert f'id="seedling-{name}"' in commands
    assert "--effort" in commands and "--cron" in commands
    functions = (site / "api.html").read_text(encoding="utf-8")
    for name in ("grow", "GrowResult", "GrowResult.predict", "GrowResult.label_issues"):
        assert re.search(rf'id="seedling\.(python_api\.)?{re.escape(name)}"', functions), name
    assert "a new folder for the workspace; None creates a temporary one" in functions

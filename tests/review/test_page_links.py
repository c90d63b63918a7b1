"""The links of the pages in reports/ to suspicious rows: a click opens the row, and without a server there is a command."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect_runs import free_port, wait_for
from review_pages import START_SECONDS, ReviewPage, ReviewProcess, reviewing

from seedling.report.data_page import write_data_page
from seedling.report.report import write_report

pytestmark = pytest.mark.slow
WRITERS = {"data.html": write_data_page, "report.html": write_report}
PAGES = pytest.mark.parametrize("name", list(WRITERS))
ROW_COMMAND = r"seedling review <span>--row ([0-9a-f]{8,32})<"


@pytest.fixture(scope="module")
def workspace(finished_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of images with a model, the pages of which are written while no server runs."""
    copy = Path(shutil.copytree(finished_workspace, tmp_path_factory.mktemp("links") / "images", symlinks=True))
    for write in WRITERS.values():
        write(copy)
    return copy


@pytest.fixture(scope="module")
def review(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReviewProcess]:
    """`seedling review` of a copy, the pages of which are written while it runs."""
    copy = Path(shutil.copytree(workspace, tmp_path_factory.mktemp("linked") / "images", symlinks=True))
    with reviewing(copy, kind=ReviewProcess) as review:
        for write in WRITERS.values():
            write(copy)
        yield review


def rows_without_server(workspace: Path, name: str) -> list[str]:
    """The rows for which the page of the workspace without a server states a command."""
    return re.findall(ROW_COMMAND, (workspace / "reports" / name).read_text(encoding="utf-8"))


def show(page: Any, path: Path) -> None:
    """Open the page of the report, and the section in which the rows are."""
    page.goto(path.as_uri())
    if path.name == "report.html" and page.locator("details#review:not([open])").count():
        page.locator("details#review > summary").click()


@PAGES
def test_a_click_on_the_link_of_a_row_opens_that_row(
    browser: Any, workspace: Path, review: ReviewProcess, name: str
) -> None:
    """Every suspicious row has a link, in the browser in which the review was opened; first, last and middle one."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    ReviewPage(context, review.url()).page.close()
    page = context.new_page()
    show(page, review.workspace / "reports" / name)
    links = page.locator("a[href*='/item/']")
    targets = [str(link.get_attribute("href")) for link in links.all()]
    rows = [target.rpartition("/")[2] for target in targets]
    prefixes = sorted(rows_without_server(workspace, name))
    assert [row[: len(prefix)] for row, prefix in zip(sorted(rows), prefixes, strict=True)] == prefixes
    assert len(rows) >= 10
    assert all(target.startswith(f"http://127.0.0.1:{review.port}/item/") for target in targets)
    for number in (0, len(rows) // 2, len(rows) - 1):
        show(page, review.workspace / "reports" / name)
        with context.expect_page() as new_tab:
            links.nth(number).click()
        new_tab.value.wait_for_selector(f"body[data-painted='{rows[number]}']")
        assert rows[number] in new_tab.value.inner_text("#provenance")
        new_tab.value.close()


@PAGES
def test_an_answer_after_the_link_is_about_that_row(browser: Any, review: ReviewProcess, name: str) -> None:
    """And the page goes on with the rows of the queue."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    ReviewPage(context, review.url()).page.close()
    reports = context.new_page()
    reports.goto((review.workspace / "reports" / name).as_uri())
    link = reports.locator("a[href*='/item/']").nth(3)
    page = ReviewPage(context, str(link.get_attribute("href")))
    assert page.press("u") == [str(link.get_attribute("href")).rpartition("/")[2]]
    page.wait_until_saved()
    assert review.answers()[-1]["row_id"] == str(link.get_attribute("href")).rpartition("/")[2]


@PAGES
def test_a_browser_without_the_token_is_refused(browser: Any, review: ReviewProcess, name: str) -> None:
    """The page of the report has no token, and the answer says where it is."""
    context = browser.new_context()
    page = context.new_page()
    show(page, review.workspace / "reports" / name)
    with context.expect_page() as new_tab:
        page.locator("a[href*='/item/']").first.click()
    new_tab.value.wait_for_url("**/item/*")
    assert "Open the address that seedling review printed" in new_tab.value.inner_text("body")


@PAGES
def test_a_page_without_a_server_states_the_command_of_each_row(browser: Any, workspace: Path, name: str) -> None:
    """There is no link; the command as it is on the page opens that row."""
    page = browser.new_context().new_page()
    show(page, workspace / "reports" / name)
    assert page.locator("a[href*='/item/']").count() == 0
    commands = page.locator("code", has_text="seedling review --row").all_inner_texts()
    assert len(commands) >= 10
    row = commands[1].rpartition(" ")[2]
    log = workspace.parent / f"{name}.log"
    command = [str(Path(sys.executable).parent / "seedling"), *shlex.split(commands[1])[1:]]
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [*command, "--no-browser", "--port", str(free_port())], cwd=workspace, stdout=file, stderr=file
        )
    try:
        wait_for(lambda: " to review." in log.read_text(encoding="utf-8"), START_SECONDS, log.read_text)
        address = next(word for word in log.read_text(encoding="utf-8").split() if word.startswith("http"))
        assert ReviewPage(browser.new_context(), address).row.startswith(row)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)

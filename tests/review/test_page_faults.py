"""The review page loses and doubles no answer: kills of server and browser, lost network, full disk, tabs, restarts."""

from __future__ import annotations

import json
import shutil
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from review_pages import LAUNCH, ReviewPage, ReviewProcess, browser_process, kill_tree, reviewing

from seedling.review.decisions import read_decisions
from seedling.workspace import Workspace

pytestmark = pytest.mark.slow


def assert_once(review: ReviewProcess, rows: list[str]) -> None:
    """Each of these rows, and no other, has one answer in the log."""
    assert [line["row_id"] for line in review.answers()] == rows
    assert len({line["id"] for line in review.answers()}) == len(rows)


def test_a_killed_server_loses_nothing(context: Any, image_workspace: Path) -> None:
    """Between key and acknowledgment: the server stops, three keys are pressed, and it is killed and started again."""
    with reviewing(image_workspace, kind=ReviewProcess) as review:
        page = ReviewPage(context, review.url())
        page.use_mode("verify")
        rows = page.press("a")
        page.wait_until_saved()
        review.signal(signal.SIGSTOP)
        rows += page.press("x", "a", "u")
        assert page.page.get_attribute("body", "data-unsent") == "3"
        review.kill()
        rows += page.press("a")
        page.page.wait_for_selector("#banner:has-text('kept in this browser')")
        review.start()
        page.wait_until_saved()
        assert not page.page.locator("#banner").is_visible()
        assert_once(review, rows)


def test_a_killed_browser_loses_nothing(chromium: Any, image_workspace: Path, tmp_path: Path) -> None:
    """Chromium is killed while the server does not respond; the next one sends the answers, and goes on after them."""
    profile = tmp_path / "profile"
    with reviewing(image_workspace, kind=ReviewProcess) as review:
        context = chromium.launch_persistent_context(str(profile), **LAUNCH)
        page = ReviewPage(context, review.url())
        page.use_mode("verify")
        review.signal(signal.SIGSTOP)
        rows = page.press("a", "x", "n")
        present = page.row
        kill_tree(browser_process(profile))
        review.kill()
        assert review.answers() == []
        review.start()
        context = chromium.launch_persistent_context(str(profile), **LAUNCH)
        page = ReviewPage(context, review.url())
        page.wait_until_saved()
        assert page.row == present
        assert_once(review, rows)
        context.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_command_without_an_error(context: Any, image_workspace: Path, number: signal.Signals) -> None:
    """While a page is open: it says how many answers are saved, and the same port can be used at once."""
    with reviewing(image_workspace, kind=ReviewProcess) as review:
        page = ReviewPage(context, review.url())
        page.use_mode("verify")
        page.press("a", "x")
        page.wait_until_saved()
        review.signal(number)
        assert review.process is not None and review.process.wait(timeout=60) == 0
        printed = review.log_path.read_text(encoding="utf-8")
        assert printed.endswith("Stopped. Saved: 2 answers.\n") and "Traceback" not in printed
        review.start()
        page.page.reload()
        assert page.wait_until_painted()


def test_a_lost_network_stops_nobody(context: Any, image_workspace: Path) -> None:
    """Offline, keys go on with the rows that are on the page; online, the answers are sent, each once."""
    with reviewing(image_workspace) as review:
        page = ReviewPage(context, review.url())
        page.use_mode("verify")
        page.page.wait_for_timeout(500)
        context.set_offline(True)
        rows = page.press("a", "x", "a", "b", "a")
        page.page.keyboard.press("z")
        page.page.wait_for_selector(f"body[data-painted='{rows[4]}']")
        page.press("u")
        page.page.wait_for_selector("#banner:has-text('cannot be reached')")
        assert "not yet saved" in page.text("#saved")
        assert review.lines() == []
        context.set_offline(False)
        page.wait_until_saved()
        assert [line["kind"] for line in review.lines()] == [*["answer"] * 5, "undo", "answer"]
        assert_once(review, [*rows, rows[4]])


def test_a_reload_returns_to_the_same_row(context: Any, image_workspace: Path) -> None:
    """Also after a restart of the server, and the rows after it come in the same order."""
    with reviewing(image_workspace) as review:
        page = ReviewPage(context, review.url())
        page.use_mode("verify")
        page.press("a", "x")
        page.wait_until_saved()
        present = page.row
        page.page.reload()
        assert page.wait_until_painted() == present
        review.stop()
        review.start()
        page.page.reload()
        assert page.wait_until_painted() == present


def test_a_reload_returns_to_the_same_grid(context: Any, image_workspace: Path) -> None:
    """All its rows, in their order; marks that were not sent are gone."""
    ids = "[...document.querySelectorAll('.cell')].map(cell => cell.dataset.id)"
    with reviewing(image_workspace) as review:
        page = ReviewPage(context, review.url())
        page.use_mode("grid")
        rows = page.page.evaluate(ids)
        page.page.keyboard.press("2")
        page.page.reload()
        page.wait_until_painted()
        assert page.page.evaluate(ids) == rows
        assert page.page.locator(".cell[aria-pressed='true']").count() == 0
        assert len(rows) > 3 and review.answers() == []


def test_undo_goes_on_after_a_restart(context: Any, image_workspace: Path) -> None:
    """A new page on a new server takes back answers of the earlier one, the latest first, and restores them."""
    with reviewing(image_workspace) as review:
        page = ReviewPage(context, review.url())
        page.use_mode("verify")
        rows = page.press("a", "x", "a")
        page.wait_until_saved()
        review.stop()
        review.start()
        page.page.reload()
        page.wait_until_painted()
        for row_id in (rows[2], rows[1]):
            page.page.keyboard.press("z")
            page.page.wait_for_selector(f"body[data-painted='{row_id}']")
        page.wait_until_saved()
        page.page.reload()
        page.wait_until_painted()
        page.page.keyboard.press("y")
        page.page.wait_for_selector("#toast.visible:has-text('Restored')")
        page.wait_until_saved()
        answers, undos = review.answers(), review.lines()[3:]
        assert [(line["kind"], line["answer_ids"]) for line in undos] == [
            ("undo", [answers[2]["id"]]),
            ("undo", [answers[1]["id"]]),
            ("redo", [answers[1]["id"]]),
        ]


def test_the_latest_tab_is_active(context: Any, image_workspace: Path) -> None:
    """The earlier tab waits, takes no key, and takes over by Enter; no row is answered twice or left out."""
    with reviewing(image_workspace) as review:
        first = ReviewPage(context, review.url())
        first.use_mode("verify")
        rows = first.press("a", "x")
        second = ReviewPage(context, review.url())
        rows += second.press("a", "x")
        first.page.bring_to_front()
        first.page.wait_for_selector("#cover:has-text('another tab')")
        first.page.keyboard.press("a")
        first.page.keyboard.press("x")
        first.page.keyboard.press("Enter")
        first.page.wait_for_selector("#cover", state="hidden")
        first.wait_until_painted()
        rows += first.press("a", "x")
        first.wait_until_saved()
        second.page.wait_for_selector("#cover:has-text('another tab')")
        assert_once(review, rows)
        assert len(set(rows)) == 6


def test_answers_wait_for_a_disk_that_can_be_written(context: Any, image_workspace: Path) -> None:
    """The log cannot be written: the page says why and keeps the answers, and they are stored once it can."""
    reviews = Workspace(image_workspace).reviews
    shutil.rmtree(reviews, ignore_errors=True)
    reviews.write_text("a file where the folder belongs")
    with reviewing(image_workspace) as review:
        page = ReviewPage(context, review.url())
        page.use_mode("verify")
        rows = page.press("a", "x")
        page.page.wait_for_selector("#banner:has-text('could not be written')")
        assert page.page.get_attribute("body", "data-unsent") == "2"
        reviews.unlink()
        page.wait_until_saved()
        assert_once(review, rows)


def test_two_reviewers_get_different_rows(chromium: Any, image_workspace: Path) -> None:
    """Each with a token of their own; what one answers, the other does not get."""
    browser = chromium.launch(**LAUNCH)
    with reviewing(image_workspace, ("anna", "ben")) as review:
        anna, ben = (ReviewPage(browser.new_context(), review.url(name)) for name in ("anna", "ben"))
        answered = {"anna": anna.press("a", "a", "a"), "ben": ben.press("a", "x", "a")}
        anna.wait_until_saved()
        ben.wait_until_saved()
        assert set(answered["anna"]) & set(answered["ben"]) == set()
        for name, rows in answered.items():
            assert [line["row_id"] for line in review.answers(name)] == rows
    browser.close()


def test_a_clock_that_goes_back_does_not_matter(context: Any, image_workspace: Path) -> None:
    """The browser's clock jumps an hour back: times on the screen stay those of the steady clock."""
    with reviewing(image_workspace) as review:
        page = ReviewPage(context, review.url())
        page.use_mode("verify")
        page.page.evaluate("(now => { Date.now = () => now() - 3_600_000; })(Date.now.bind(Date))")
        rows = page.press("a", "x")
        page.wait_until_saved()
        assert_once(review, rows)
        assert all(0 < line["milliseconds"] < 60_000 for line in review.answers())


def test_a_server_clock_that_goes_back_does_not_matter(context: Any, image_workspace: Path) -> None:
    """The log has answers of the next day: later ones are not earlier, and a change of the classes maps all of them."""
    with reviewing(image_workspace) as review:
        page = ReviewPage(context, review.url())
        page.use_mode("label")
        rows = page.press("3", "4")
        page.wait_until_saved()
        review.stop()
        path = Workspace(image_workspace).review_log("anna")
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="milliseconds")
        lines = [{**line, "written_at": tomorrow} for line in review.lines()]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
        review.start()
        page.page.reload()
        page.wait_until_painted()
        rows += page.press("3", "5")
        page.page.keyboard.press("z")
        page.page.wait_for_selector(f"body[data-painted='{rows[-1]}']")
        page.press("4")
        page.wait_until_saved()
        for old, new in (("bar", "rod"), ("rod", "stick")):
            page.page.keyboard.press("F2")
            page.page.select_option("#operation", "rename")
            page.page.select_option("#old-classes", old)
            page.page.fill("#new-classes", new)
            with page.page.expect_event("load"):
                page.page.click("#editor-save")
            page.wait_until_painted()
        times = [line["written_at"] for line in review.lines()]
        assert times == sorted(times) and min(times) == tomorrow
        decided = read_decisions(Workspace(image_workspace).reviews).by_row
        assert [decided[row].label for row in rows] == ["stick", "cross", "stick", "cross"]


def test_two_reviewers_on_the_same_row_are_both_in_the_log(chromium: Any, image_workspace: Path) -> None:
    """By its link, both have it on the screen: each answer is in its reviewer's file once, and they are tied."""
    browser = chromium.launch(**LAUNCH)
    with reviewing(image_workspace, ("anna", "ben")) as review:
        row = ReviewPage(browser.new_context(), review.url()).row
        anna, ben = (ReviewPage(browser.new_context(), review.url(name, f"/item/{row}")) for name in ("anna", "ben"))
        assert anna.row == ben.row == row
        assert anna.press("3") == ben.press("4") == [row]
        anna.wait_until_saved()
        ben.wait_until_saved()
        assert [(line["row_id"], line["label"]) for line in review.answers("anna")] == [(row, "bar")]
        assert [(line["row_id"], line["label"]) for line in review.answers("ben")] == [(row, "cross")]
        (tied,) = read_decisions(Workspace(image_workspace).reviews).disagreements
        assert (tied.row_id, tied.decision) == (row, None)
        ben.page.keyboard.press("z")
        ben.page.wait_for_selector(f"body[data-painted='{row}']")
        ben.press("3")
        ben.wait_until_saved()
        assert read_decisions(Workspace(image_workspace).reviews).by_row[row].label == "bar"
    browser.close()


def test_a_new_token_sends_the_kept_answers(context: Any, image_workspace: Path) -> None:
    """The link is no longer valid: the page says so, and the new link sends what was kept."""
    with reviewing(image_workspace) as review:
        page = ReviewPage(context, review.url())
        page.use_mode("verify")
        review.stop()
        rows = page.press("a", "x")
        (Workspace(image_workspace).review_folder / "tokens.json").unlink()
        review.start()
        page.page.wait_for_selector("#banner:has-text('no longer valid')")
        page.page.goto(review.url())
        page.wait_until_painted()
        page.wait_until_saved()
        assert_once(review, rows)

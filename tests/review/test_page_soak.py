"""No answer is lost or doubled: 200 kills of server and browser at random moments, and half a minute without network."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Error
from review_pages import (
    LAUNCH,
    ReviewFork,
    ReviewPage,
    ReviewProcess,
    ask_in_order,
    browser_process,
    kill_tree,
    reviewing,
)

from seedling.init.create import make_workspace
from seedling.review.log import read_file
from seedling.versioning.ledger import Ledger
from seedling.workspace import Workspace

pytestmark = pytest.mark.soak
KILLS, SEED = 200, 20
TEXTS = 1_000
MAX_KEYS = 6  # between two kills; a page that was just opened has more rows
KEYS = {"2": "label", "3": "label", "b": "bad", "n": "none_of_these", "u": "unsure"}
MAX_DELAY_SECONDS = 0.5  # from the first key to the kill
STOPPED_SHARE = 1 / 3  # of the kills before which the server acknowledges nothing
PAINT_MILLISECONDS = 1_000
OFFLINE_SECONDS = 30


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of two classes, most of them without a label."""
    folder = tmp_path_factory.mktemp("texts")
    source = folder / "letters"
    for label in ("fruit", "tool"):
        (source / "labeled" / label).mkdir(parents=True)
        for number in range(4):
            (source / "labeled" / label / f"{number}.txt").write_text(f"labeled letter {number} about a {label}")
    (source / "unlabeled").mkdir()
    for number in range(TEXTS):
        (source / "unlabeled" / f"{number}.txt").write_text(f"letter {number} of {number * number} about things")
    workspace = make_workspace(folder / "workspace", source, "text", encoder="none")
    ask_in_order(workspace)
    assert Ledger(workspace).run("scrape").how == "done"
    return workspace


class ScriptedReviewer:
    """Answers rows in Chromium while server and browser are killed.

    registered: row → key, of the keys after which the page showed the next row. in_flight: those that a kill may have
    cut off before.
    """

    def __init__(self, chromium: Any, profile: Path, review: ReviewProcess) -> None:
        self.chromium, self.profile, self.review = chromium, profile, review
        self.draws = random.Random(SEED)  # noqa: S311  (not a secret)
        self.registered: dict[str, str] = {}
        self.in_flight: list[str] = []
        self.again: list[str] = []
        self.open()

    def open(self) -> None:
        """Start the browser with the profile, and open the page."""
        context = self.chromium.launch_persistent_context(str(self.profile), **LAUNCH)
        self.browser = browser_process(self.profile)
        self.page = ReviewPage(context, self.review.url())

    def answer(self) -> bool:
        """Press the key of a random answer. Returns whether the page showed the next row."""
        row, key = self.page.row, self.draws.choice(list(KEYS))
        if not row:
            return False
        self.in_flight.append(row)
        self.page.page.keyboard.press(key)
        painted = f"body[data-painted]:not([data-painted='']):not([data-painted='{row}'])"
        self.page.page.wait_for_selector(painted, timeout=PAINT_MILLISECONDS)
        if row in self.registered:
            self.again.append(row)
        self.in_flight.remove(row)
        self.registered[row] = key
        return True

    def hit(self, target: str) -> None:
        """Answer while the target is killed at a random moment, and start it again."""
        is_stopped = self.draws.random() < STOPPED_SHARE
        kill = self.review.kill if target == "server" else lambda: kill_tree(self.browser)
        timer = threading.Timer(self.draws.uniform(0, MAX_DELAY_SECONDS), kill)
        keys = self.draws.randint(1, MAX_KEYS)
        if is_stopped:
            self.review.signal(signal.SIGSTOP)
        timer.start()
        try:
            for _ in range(keys):
                if not self.answer():
                    break
        except Error:  # the browser is gone, or no row is left on the page
            pass
        timer.join()
        if target == "server":
            self.review.start()
        else:
            self.review.signal(signal.SIGCONT)
            self.open()


def test_two_hundred_kills_lose_and_double_no_answer(chromium: Any, workspace: Path, tmp_path: Path) -> None:
    """Each answer after whose key the page showed the next row is in the log once; no row is there twice."""
    started = time.monotonic()
    with reviewing(workspace, kind=ReviewFork) as review:
        reviewer = ScriptedReviewer(chromium, tmp_path / "profile", review)
        targets = [reviewer.draws.choice(["server", "browser"]) for _ in range(KILLS)]
        for target in targets:
            reviewer.hit(target)
        reviewer.page.wait_until_saved()
        log = read_file(Workspace(workspace).review_log("anna"))
        logged = {line["row_id"]: line["answer"] for line in review.answers()}
        counts = Counter(line["row_id"] for line in review.answers())
        lost = [row for row in reviewer.registered if row not in logged]
        doubled = [row for row, count in counts.items() if count > 1]
        print(
            f"{Counter(targets)} kills, {len(reviewer.registered)} answers registered, {len(counts)} in the log, "
            f"{len(reviewer.in_flight)} keys in flight, {len(lost)} lost, {len(doubled)} doubled, "
            f"{time.monotonic() - started:.0f} seconds"
        )
        assert (lost, doubled, reviewer.again, log.damaged) == ([], [], [], [])
        assert len({line["id"] for line in review.answers()}) == len(review.answers())
        assert {row: KEYS[key] for row, key in reviewer.registered.items()}.items() <= logged.items()
        assert len(logged) <= len(reviewer.registered) + len(set(reviewer.in_flight))
        assert len(reviewer.registered) > KILLS


def test_half_a_minute_without_network_loses_nothing(chromium: Any, workspace: Path) -> None:
    """Keys go on meanwhile, and a few seconds after the network is back, each answer is in the log once."""
    browser = chromium.launch(**LAUNCH)
    context = browser.new_context()
    with reviewing(workspace, ("eva",)) as review:
        page = ReviewPage(context, review.url("eva"))
        rows = page.press("2", "3", "2", "3")
        page.wait_until_saved()
        context.set_offline(True)
        lost_at = time.monotonic()
        rows += page.press("2", "3", "b", "n")
        while time.monotonic() < lost_at + OFFLINE_SECONDS:
            page.page.wait_for_timeout(500)
        assert "cannot be reached" in page.text("#banner")
        rows += page.press("2", "3")
        assert len(review.answers("eva")) == 4
        context.set_offline(False)
        page.wait_until_saved()
        assert [line["row_id"] for line in review.answers("eva")] == rows
        assert not page.page.locator("#banner").is_visible()
    browser.close()


def test_two_tabs_that_take_over_in_turns_answer_each_row_once(chromium: Any, workspace: Path) -> None:
    """Forty times, the waiting tab takes over by Enter while the answers of the other are on their way."""
    browser = chromium.launch(**LAUNCH)
    context = browser.new_context()
    with reviewing(workspace, ("tom",)) as review:
        tabs = [ReviewPage(context, review.url("tom")) for _ in range(2)]
        rows = tabs[1].press("2", "3")
        for turn in range(40):
            tab = tabs[turn % 2]
            tab.page.bring_to_front()
            tab.page.wait_for_selector("#cover:has-text('another tab')")
            tab.page.keyboard.press("Enter")
            tab.page.wait_for_selector("#cover", state="hidden")
            tab.wait_until_painted()
            rows += tab.press("2", "b")
        tabs[1].wait_until_saved()
        assert [line["row_id"] for line in review.answers("tom")] == rows
        assert len(set(rows)) == len(rows) == 82
    browser.close()

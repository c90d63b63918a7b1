"""Near-duplicates that a reviewer compares on the page: what is kept, the log, undo, and what validate rejects."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from review_pages import ReviewPage, ReviewProcess, ask_in_order, reviewing

from seedling.dataset.generation import read, read_rejected
from seedling.init.create import make_workspace
from seedling.review.decisions import read_decisions
from seedling.versioning.ledger import Ledger
from seedling.workspace import Workspace

pytestmark = pytest.mark.slow
WORDS = {"fruit": ("apple", "pear", "plum", "cherry", "grape"), "tool": ("hammer", "saw", "drill", "wrench", "chisel")}
LABELED, GROUPS, COPIES = 10, 3, 3  # texts per class; groups of near-duplicates in the pool, and their rows


def write_texts(folder: Path) -> None:
    """Labeled texts of two topics, and groups of texts that differ in a word of forty."""
    draws = random.Random(3)  # noqa: S311  (not a secret)
    for label, words in WORDS.items():
        (folder / "labeled" / label).mkdir(parents=True)
        for number in range(LABELED):
            text = " ".join(f"{draws.choice(words)} {draws.randrange(900)}" for _ in range(10))
            (folder / "labeled" / label / f"{number}.txt").write_text(text)
    (folder / "unlabeled").mkdir()
    for group in range(GROUPS):
        numbered = [f"{draws.choice(WORDS['fruit'])} {draws.randrange(900)}" for _ in range(40)]
        for number in range(COPIES):
            text = " ".join([*numbered, f"copy{number}"])
            (folder / "unlabeled" / f"{group}-{number}.txt").write_text(text)


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which scrape and validate have run. Only to be copied."""
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder / "letters")
    workspace = make_workspace(folder / "workspace", folder / "letters", "text", encoder="none")
    ask_in_order(workspace)
    for stage in ("scrape", "validate"):
        assert Ledger(workspace).run(stage).how == "done"
    return workspace


@pytest.fixture
def review(validated: Path, tmp_path: Path) -> Iterator[ReviewProcess]:
    """A review of a copy."""
    copy = Path(shutil.copytree(validated, tmp_path / "workspace", symlinks=True))
    with reviewing(copy, ("anna", "ben")) as review:
        yield review


def opened(browser: Any, review: ReviewProcess, reviewer: str = "anna") -> ReviewPage:
    """The page in a new context, with the first group on the screen."""
    page = ReviewPage(browser.new_context(viewport={"width": 1280, "height": 860}), review.url(reviewer))
    page.use_mode("duplicates")
    return page


def rows_of(page: ReviewPage) -> list[str]:
    """The ids of the rows on the screen."""
    return [str(cell.get_attribute("data-id")) for cell in page.page.locator(".cell").all()]


def groups(workspace: Path) -> set[frozenset[str]]:
    """The rows of each group of near-duplicates, as validate wrote them."""
    rows = read(Workspace(workspace).generation("validate"), ["id", "group"])
    members = rows.groupby("group")["id"].agg(frozenset)
    return {group for group in members if len(group) > 1}


def kinds(review: ReviewProcess, reviewer: str = "anna") -> dict[str, str]:
    """Row → what the last answer about it is."""
    return {line["row_id"]: line["answer"] for line in review.answers(reviewer)}


def rejections(workspace: Path) -> dict[str, str]:
    """Run validate. Returns row → reason, of the rows that it rejects because of reviews."""
    assert Ledger(workspace).run("validate").how == "done"
    rejected = read_rejected(Workspace(workspace).generation("validate"), ["id", "reason"])
    return {row: reason for row, reason in zip(rejected["id"], rejected["reason"], strict=True) if "review:" in reason}


def test_a_click_keeps_a_row_and_removes_its_copies(browser: Any, review: ReviewProcess) -> None:
    """Each screen is a group of validate; a click or a digit decides all of its rows, and validate rejects the copies."""
    page = opened(browser, review)
    screens = [rows_of(page)]
    assert "Which of these near-duplicates is kept?" in page.text("#asked")
    page.page.locator(".cell").nth(1).click()
    page.wait_until_painted(other_than=screens[0][0])
    screens.append(rows_of(page))
    page.page.keyboard.press("3")
    page.wait_until_painted(other_than=screens[1][0])
    screens.append(rows_of(page))
    page.page.keyboard.press("1")
    page.page.wait_for_selector("#cover:has-text('There are no near-duplicates to compare')")
    page.wait_until_saved()
    assert {frozenset(screen) for screen in screens} == groups(review.workspace)
    assert [len(screen) for screen in screens] == [COPIES] * GROUPS
    kept = {screens[0][1], screens[1][2], screens[2][0]}
    copies = {row for screen in screens for row in screen} - kept
    assert kinds(review) == dict.fromkeys(kept, "keep") | dict.fromkeys(copies, "duplicate")
    answers = review.answers()
    assert {line["question"] for line in answers} == {"duplicates"} and len(answers) == GROUPS * COPIES
    assert len({line["batch"] for line in answers}) == GROUPS
    assert rejections(review.workspace) == dict.fromkeys(copies, "review:duplicate")
    assert kept <= set(read(Workspace(review.workspace).generation("validate"), ["id"])["id"])
    assert groups(review.workspace) == set()


def test_marked_copies_and_bad_rows_are_removed_and_the_rest_is_kept(browser: Any, review: ReviewProcess) -> None:
    """Space marks a copy, B marks bad content, and Enter keeps the rest; the page says how many these are."""
    page = opened(browser, review)
    rows = rows_of(page)
    page.page.keyboard.press("Space")
    assert page.page.locator(".cell").nth(0).get_attribute("aria-pressed") == "true"
    assert "≡ copy" in page.page.locator(".cell").nth(0).inner_text()
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("b")
    assert page.text("#answers .yes span") == "Keep the other 1"
    page.page.keyboard.press("Enter")
    page.wait_until_painted(other_than=rows[0])
    page.wait_until_saved()
    assert kinds(review) == {rows[0]: "duplicate", rows[1]: "bad", rows[2]: "keep"}
    assert rejections(review.workspace) == {rows[0]: "review:duplicate", rows[1]: "review:bad"}


def test_not_all_rows_can_be_removed(browser: Any, review: ReviewProcess) -> None:
    """With all rows marked, Enter says so, and nothing is in the log; without a mark, all are kept."""
    page = opened(browser, review)
    rows = rows_of(page)
    for _ in rows:
        page.page.keyboard.press("Space")
        page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("Enter")
    page.page.wait_for_selector("#toast.visible:has-text('At least one row is kept')")
    assert rows_of(page) == rows and review.answers() == []
    for cell in page.page.locator(".cell").all():
        cell.focus()
        page.page.keyboard.press("Space")
    page.page.keyboard.press("Enter")
    page.wait_until_painted(other_than=rows[0])
    page.wait_until_saved()
    assert kinds(review) == dict.fromkeys(rows, "keep")
    assert rejections(review.workspace) == {}


def test_undo_shows_the_group_again_and_takes_all_its_answers_back(browser: Any, review: ReviewProcess) -> None:
    """One line undoes the batch, a reload asks about the group again."""
    page = opened(browser, review)
    rows = rows_of(page)
    page.page.keyboard.press("2")
    page.wait_until_painted(other_than=rows[0])
    page.page.keyboard.press("z")
    page.page.wait_for_selector(f"body[data-painted='{rows[0]}']")
    page.wait_until_saved()
    assert rows_of(page) == rows
    assert set(review.lines()[-1]["answer_ids"]) == {line["id"] for line in review.answers()}
    assert read_decisions(Workspace(review.workspace).reviews).by_row == {}
    page.page.reload()
    page.wait_until_painted()
    for _ in range(GROUPS):
        if set(rows_of(page)) == set(rows):
            break
        page.press("s")
    assert set(rows_of(page)) == set(rows)


def test_redo_removes_the_copies_again(browser: Any, review: ReviewProcess) -> None:
    """After undo and a reload, Y restores the batch, and validate rejects its copies."""
    page = opened(browser, review)
    rows = rows_of(page)
    page.press("2")
    page.page.keyboard.press("z")
    page.page.wait_for_selector(f"body[data-painted='{rows[0]}']")
    page.wait_until_saved()
    page.page.reload()
    page.wait_until_painted()
    page.page.keyboard.press("y")
    page.page.wait_for_selector("#toast.visible:has-text('Restored')")
    page.wait_until_saved()
    assert rejections(review.workspace) == dict.fromkeys({rows[0], rows[2]}, "review:duplicate")


def test_a_group_is_compared_once_and_skipped_groups_return(browser: Any, review: ReviewProcess) -> None:
    """Ben does not get the group that Anna has compared; after a reload, the groups that she skipped are there."""
    anna = opened(browser, review)
    compared = set(rows_of(anna))
    anna.press("1")
    anna.wait_until_saved()
    ben = opened(browser, review, "ben")
    assert not compared & set(rows_of(ben))
    skipped = set(rows_of(anna))
    anna.press("s")
    anna.wait_until_saved()
    anna.page.reload()
    anna.wait_until_painted()
    screens = [set(rows_of(anna))]
    anna.press("1")
    screens.append(set(rows_of(anna)))
    assert skipped in screens and compared not in screens


def test_a_kept_row_is_still_asked_for_its_class(browser: Any, review: ReviewProcess) -> None:
    """A copy is not: it is out of the data."""
    page = opened(browser, review)
    rows = rows_of(page)
    page.page.keyboard.press("1")
    page.wait_until_painted(other_than=rows[0])
    page.wait_until_saved()
    page.use_mode("label")
    asked_rows = set()
    while not page.page.locator("#cover").is_visible():
        row = page.row
        asked_rows.add(row)
        page.page.keyboard.press("u")
        page.page.wait_for_selector(f"body:not([data-painted='{row}']):not([data-painted='']), #cover:not([hidden])")
    assert rows[0] in asked_rows and not {rows[1], rows[2]} & asked_rows

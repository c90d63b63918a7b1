"""Classes that a reviewer renames, merges or splits on the page: the log, earlier answers, keys, and other pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from review_pages import ReviewPage, ReviewProcess, ask_in_order, reviewing

from seedling.init.create import make_workspace
from seedling.review.decisions import Decision, read_decisions
from seedling.versioning.ledger import Ledger
from seedling.workspace import Workspace

pytestmark = pytest.mark.slow
CLASSES = ("bus", "cat", "dog")
LABELED, UNLABELED = 3, 6  # texts per class, and of the pool
MARKUP = "<img src=x onerror=alert(1)> & \"quoted\" 'class'"


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of texts of three classes. Only to be copied."""
    folder = tmp_path_factory.mktemp("texts")
    source = folder / "letters"
    for label in CLASSES:
        (source / "labeled" / label).mkdir(parents=True)
        for number in range(LABELED):
            (source / "labeled" / label / f"{number}.txt").write_text(f"letter {number} tells of a {label} and more")
    (source / "unlabeled").mkdir()
    for number in range(UNLABELED):
        (source / "unlabeled" / f"{number}.txt").write_text(f"a further letter {number} tells of other things")
    workspace = make_workspace(folder / "workspace", source, "text", encoder="none")
    ask_in_order(workspace)
    assert Ledger(workspace).run("scrape").how == "done"
    return workspace


@pytest.fixture
def review(collected: Path, tmp_path: Path) -> Iterator[ReviewProcess]:
    """A review of a copy by two reviewers."""
    copy = Path(shutil.copytree(collected, tmp_path / "workspace", symlinks=True))
    with reviewing(copy, ("anna", "ben")) as review:
        yield review


def opened(browser: Any, review: ReviewProcess, reviewer: str = "anna", mode: str = "label") -> ReviewPage:
    """The page in a new context, in the mode."""
    page = ReviewPage(browser.new_context(viewport={"width": 1280, "height": 860}), review.url(reviewer))
    page.use_mode(mode)
    return page


def state_change(page: ReviewPage, operation: str, old: tuple[str, ...], new: str) -> None:
    """Fill the dialog of the classes, and save it."""
    page.page.keyboard.press("F2")
    page.page.select_option("#operation", operation)
    if old:
        page.page.select_option("#old-classes", list(old))
    page.page.fill("#new-classes", new)
    page.page.click("#editor-save")


def change(page: ReviewPage, operation: str, old: tuple[str, ...], new: str) -> None:
    """Change the classes, and wait until the page has the new ones."""
    page.wait_until_saved()
    with page.page.expect_event("load"):
        state_change(page, operation, old, new)
    page.wait_until_painted()


def class_keys(page: ReviewPage) -> dict[str, str]:
    """Class → the key on its button."""
    buttons = page.page.locator("#labels button").all()
    return {str(button.get_attribute("data-label")): button.locator("kbd").inner_text() for button in buttons}


def choose(page: ReviewPage, label: str) -> str:
    """Click the class; the row that gets it."""
    row = page.row
    page.page.locator(f"#labels button[data-label='{label}']").click()
    page.wait_until_painted(other_than=row)
    return row


def decision(review: ReviewProcess, row: str) -> Decision | None:
    """What the log says about the row."""
    return read_decisions(Workspace(review.workspace).reviews).by_row.get(row)


def label_of(review: ReviewProcess, row: str) -> str | None:
    """The class that the log gives to the row."""
    decided = decision(review, row)
    return decided.label if decided else None


def changes(review: ReviewProcess, reviewer: str = "anna") -> list[tuple[Any, ...]]:
    """The changes of classes in the reviewer's log."""
    lines = [line for line in review.lines(reviewer) if line["kind"] == "classes"]
    return [(line["operation"], line.get("old", []), line["new"]) for line in lines]


def answers_until_the_end(page: ReviewPage, key: str, key_of_suggestion: str = "") -> dict[str, str]:
    """Answer all rows by a key, or by another one if a class is suggested. Returns row → the question."""
    questions = {}
    for _ in range(60):
        if page.page.locator("#cover").is_visible():
            break
        row = page.row
        questions[row] = page.text("#asked")
        is_suggested = questions[row].startswith("Is this")
        page.page.keyboard.press(key_of_suggestion if key_of_suggestion and is_suggested else key)
        page.page.wait_for_selector(f"body:not([data-painted='{row}']):not([data-painted='']), #cover:not([hidden])")
    page.wait_until_saved()
    return questions


def test_a_renamed_class_has_its_new_name_in_answers_on_the_page_and_on_its_key(
    browser: Any, review: ReviewProcess
) -> None:
    """The answer before the change gets the new name; the key that the class had in the new order chooses it."""
    page = opened(browser, review)
    assert class_keys(page) == {"bus": "3", "cat": "4", "dog": "5"}
    first = choose(page, "cat")
    change(page, "rename", ("cat",), "feline")
    assert changes(review) == [("rename", ["cat"], ["feline"])]
    assert label_of(review, first) == "feline"
    assert class_keys(page) == {"bus": "3", "dog": "4", "feline": "5"}
    (second,) = page.press("5")
    page.wait_until_saved()
    assert label_of(review, second) == "feline"


def test_rows_that_were_on_the_page_ask_about_the_new_name(browser: Any, review: ReviewProcess) -> None:
    """In verify mode, no row asks about the former name, and no answer has it."""
    page = opened(browser, review, mode="verify")
    change(page, "rename", ("cat",), "feline")
    questions = answers_until_the_end(page, "u", key_of_suggestion="a")
    assert "Is this feline?" in questions.values() and "Is this cat?" not in questions.values()
    labels = {line["label"] for line in review.answers() if line["answer"] == "label"}
    assert "feline" in labels and labels <= {"bus", "dog", "feline"}
    assert {line.get("previous_label") for line in review.answers()} <= {"bus", "dog", "feline", None}


def test_merged_classes_are_one_class_with_one_key(browser: Any, review: ReviewProcess) -> None:
    """Answers for either class count for the merged one; of two classes, one key is that of the guess."""
    page = opened(browser, review)
    rows = [choose(page, label) for label in ("cat", "dog", "bus")]
    change(page, "merge", ("cat", "dog"), "pet")
    assert changes(review) == [("merge", ["cat", "dog"], ["pet"])]
    assert [label_of(review, row) for row in rows] == ["pet", "pet", "bus"]
    assert class_keys(page) == {"bus": "2", "pet": "3"}
    (last,) = page.press("3")
    page.wait_until_saved()
    assert label_of(review, last) == "pet"


def test_the_rows_of_a_split_class_are_asked_again(browser: Any, review: ReviewProcess) -> None:
    """The row that was answered with the class, and the row that was rejected for it; not those of other classes."""
    page = opened(browser, review)
    dog, cat = choose(page, "dog"), choose(page, "cat")
    page.use_mode("verify")
    while page.text("#asked") != "Is this dog?":
        page.press("s")
    (rejected,) = page.press("x")
    change(page, "split", ("dog",), "collie\npoodle")
    assert changes(review) == [("split", ["dog"], ["collie", "poodle"])]
    assert set(class_keys(page)) == {"bus", "cat", "collie", "poodle"}
    assert decision(review, dog) is None and label_of(review, cat) == "cat"
    again = answers_until_the_end(page, "n")
    assert {dog, rejected} <= set(again)
    assert cat not in again and not any("dog" in question for question in again.values())


def test_a_row_of_a_split_class_gets_a_new_class_once(browser: Any, review: ReviewProcess) -> None:
    """All rows are answered with the class: after its split, all are left, and the cover is gone."""
    page = opened(browser, review)
    answered = answers_until_the_end(page, "5")
    assert len(answered) == len(CLASSES) * LABELED + UNLABELED
    change(page, "split", ("dog",), "collie\npoodle")
    assert page.text("#remaining") == f"{len(answered)} left"
    again = answers_until_the_end(page, "n")
    assert set(again) == set(answered)
    assert {decision(review, row).kind for row in again} == {"none_of_these"}  # type: ignore[union-attr]


def test_the_page_of_another_reviewer_learns_the_change(browser: Any, review: ReviewProcess) -> None:
    """Within some seconds, without a click, and with the same row on the screen."""
    anna, ben = opened(browser, review), opened(browser, review, "ben")
    row = ben.row
    change(anna, "rename", ("cat",), "feline")
    ben.page.wait_for_selector("#labels button[data-label='feline']")
    assert class_keys(ben) == class_keys(anna)
    assert ben.wait_until_painted() == row


def test_an_added_class_is_on_the_page_of_another_reviewer(browser: Any, review: ReviewProcess) -> None:
    """The page that added it is not loaded again."""
    anna, ben = opened(browser, review), opened(browser, review, "ben")
    anna.page.evaluate("window.isTheSamePage = true")
    state_change(anna, "add", (), "ring")
    for page in (anna, ben):
        page.page.wait_for_selector("#labels button[data-label='ring']")
    anna.page.wait_for_timeout(6_000)  # the panel is fetched every five seconds
    assert anna.page.evaluate("window.isTheSamePage")


def test_answers_from_a_page_with_former_classes_get_the_present_ones(browser: Any, review: ReviewProcess) -> None:
    """Ben is offline during the changes: his cat is a feline, and the row that he called a dog is asked again."""
    anna, ben = opened(browser, review), opened(browser, review, "ben")
    ben.page.wait_for_timeout(500)
    ben.page.context.set_offline(True)
    cat, dog = choose(ben, "cat"), choose(ben, "dog")
    change(anna, "rename", ("cat",), "feline")
    change(anna, "split", ("dog",), "collie\npoodle")
    ben.page.context.set_offline(False)
    ben.page.wait_for_selector("#labels button[data-label='poodle']")
    ben.wait_until_saved()
    assert [(line["row_id"], line["answer"]) for line in review.answers("ben")] == [(cat, "label"), (dog, "skip")]
    assert label_of(review, cat) == "feline" and decision(review, dog) is None
    again = {**answers_until_the_end(ben, "n"), **answers_until_the_end(anna, "n")}
    assert dog in again and cat not in again


def test_undo_after_a_rename_takes_the_answer_back_and_not_the_rename(browser: Any, review: ReviewProcess) -> None:
    """Z shows the row again, and Y restores the answer, under the new name of its class."""
    page = opened(browser, review)
    row = choose(page, "cat")
    change(page, "rename", ("cat",), "feline")
    page.page.keyboard.press("z")
    page.page.wait_for_selector(f"body[data-painted='{row}']")
    page.wait_until_saved()
    assert decision(review, row) is None
    assert "feline" in class_keys(page) and "cat" not in class_keys(page)
    page.page.keyboard.press("y")
    page.wait_until_painted(other_than=row)
    page.wait_until_saved()
    assert label_of(review, row) == "feline"
    assert [line["kind"] for line in review.lines()] == ["answer", "classes", "undo", "redo"]


@pytest.mark.parametrize(
    ("operation", "old", "new", "error"),
    [
        ("add", (), "", "Enter at least one new class"),
        ("rename", ("cat",), "  \n ", "Enter at least one new class"),
        ("rename", ("cat",), "first\nsecond", "Enter one new class"),
        ("rename", ("cat",), "dog", "'dog' is a class already: merge both classes"),
        ("rename", (), "feline", "Select one class"),
        ("add", (), "cat", "'cat' is a class already"),
        ("merge", ("cat",), "pet", "Select two or more classes"),
        ("split", ("cat",), "lion\nlion", "Enter two or more new classes"),
        ("add", (), "w" * 1_001, "at most 1,000 characters"),
    ],
)
def test_a_change_that_does_not_fit_is_refused_with_a_sentence(
    browser: Any, review: ReviewProcess, operation: str, old: tuple[str, ...], new: str, error: str
) -> None:
    """The dialog stays open with what was typed, and the log has no line."""
    page = opened(browser, review)
    state_change(page, operation, old, new)
    page.page.wait_for_selector(f'#editor-error:has-text("{error}")')
    assert page.page.input_value("#new-classes") == new
    assert review.lines() == [] and set(class_keys(page)) == set(CLASSES)


@pytest.mark.parametrize("name", ["w" * 200, MARKUP, "قطة"])
def test_a_long_name_and_markup_are_names_like_others(browser: Any, review: ReviewProcess, name: str) -> None:
    """They are text, do not widen the page, and can be chosen and renamed again."""
    page = opened(browser, review)
    change(page, "rename", ("cat",), name)
    assert page.page.locator("#labels button > span").all_text_contents() == sorted(["bus", "dog", name])
    row = page.row
    page.page.locator("#labels button", has_text=name).click()
    page.wait_until_painted(other_than=row)
    page.wait_until_saved()
    assert label_of(review, row) == name
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert page.page.locator("#labels img, #guesses img, #old-classes img").count() == 0
    change(page, "rename", (name,), "feline")
    assert label_of(review, row) == "feline"
    assert page.problems == []

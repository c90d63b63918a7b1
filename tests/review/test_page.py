"""The review page in Chromium, with the real server: keys, clicks and touches do what the page says."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from review_pages import ReviewPage, ReviewProcess, ask_in_order, reviewing

from seedling.config.params import set_value
from seedling.init.create import make_workspace
from seedling.versioning.ledger import Ledger
from seedling.workspace import Workspace

pytestmark = pytest.mark.slow
SCRIPT = "<script>document.title = 'changed'</script><img src=x onerror=\"alert('run')\"><b>bold</b>"
MARKUP_CLASS = "<img src=x onerror=alert(1)> & \"quoted\" 'class'"
LONG_CLASS = "w" * 200
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
}


@pytest.fixture
def images(image_workspace: Path) -> Iterator[ReviewProcess]:
    """A review of images with a model: 18 labeled rows and 6 of the pool, without random rows and refits."""
    with reviewing(image_workspace) as review:
        yield review


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReviewProcess]:
    """A review of texts without a model, with hostile texts and class names."""
    folder = tmp_path_factory.mktemp("texts")
    source = folder / "letters"
    texts = [SCRIPT, "word " * 40_000, "a short text of some words", "مرحبا بالعالم، كيف حالك اليوم؟"]
    for number, label in enumerate(("plain", LONG_CLASS)):
        (source / "labeled" / label).mkdir(parents=True)
        for index in range(3):
            (source / "labeled" / label / f"{index}.txt").write_text(f"labeled letter {number} {index} of this kind")
    (source / "unlabeled").mkdir()
    for number, text in enumerate(texts):
        (source / "unlabeled" / f"{number}.txt").write_text(text, encoding="utf-8")
    workspace = make_workspace(folder / "workspace", source, "text", encoder="none")
    set_value(workspace, ["review", "classes"], ["plain", LONG_CLASS, MARKUP_CLASS])
    ask_in_order(workspace)
    assert Ledger(workspace).run("scrape").how == "done"
    with reviewing(workspace) as review:
        yield review


def opened(browser: Any, review: ReviewProcess, reviewer: str = "anna", path: str = "/", **options: Any) -> ReviewPage:
    """The page in a new context, whose storage no other page shares."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
    return ReviewPage(context, review.url(reviewer, path))


def test_control_keys_act_alone_and_when_released(browser: Any, images: ReviewProcess) -> None:
    """Left Control accepts and right Control rejects; Control with C, with a click or with both sides does nothing."""
    page = opened(browser, images)
    page.use_mode("verify")
    first = page.row
    keyboard = page.page.keyboard
    keyboard.press("Control+c")
    keyboard.down("ControlLeft")
    page.page.mouse.click(500, 300)
    keyboard.up("ControlLeft")
    keyboard.down("ControlLeft")
    keyboard.down("ControlRight")
    keyboard.up("ControlLeft")
    keyboard.up("ControlRight")
    keyboard.down("ControlLeft")
    page.page.wait_for_timeout(300)
    assert page.row == first and images.answers() == []  # not while it is down
    keyboard.up("ControlLeft")
    second = page.wait_until_painted(other_than=first)
    page.press("ControlRight")
    page.wait_until_saved()
    assert [(line["row_id"], line["answer"]) for line in images.answers()] == [(first, "label"), (second, "reject")]
    assert page.problems == []


def test_one_key_or_click_records_each_answer(browser: Any, images: ReviewProcess) -> None:
    """In verify mode: letters, arrows and buttons; each line has the row, the class that was asked, and the time."""
    page = opened(browser, images)
    page.use_mode("verify")
    assert "Is this" in page.text("#asked")
    rows = page.press("a", "x", "ArrowRight", "ArrowLeft", "u", "n", "b", "s")
    for name in ("✓ Yes", "✕ No", "Unsure"):
        rows.append(page.row)
        page.page.locator("#answers button", has_text=name).click()
        page.wait_until_painted(other_than=rows[-1])
    page.wait_until_saved()
    answers = images.answers()
    kinds = [
        "label",
        "reject",
        "label",
        "reject",
        "unsure",
        "none_of_these",
        "bad",
        "skip",
        "label",
        "reject",
        "unsure",
    ]
    assert [line["answer"] for line in answers] == kinds
    assert [line["row_id"] for line in answers] == rows
    assert len({line["id"] for line in answers}) == len(answers)
    assert all(line["label"] == line["asked_label"] for line in answers if line["answer"] == "label")
    assert all(0 < line["milliseconds"] <= line["answered_at"] - line["shown_at"] + 100 for line in answers)
    timings = page.page.evaluate("performance.getEntriesByName('answer-to-paint').map(entry => entry.detail.row_id)")
    assert len(timings) == len(rows)  # the benchmark reads the durations of these


def test_a_held_key_answers_once(browser: Any, images: ReviewProcess) -> None:
    """A repeated keydown of the same press is not a further answer."""
    page = opened(browser, images)
    first = page.use_mode("verify")
    page.page.keyboard.down("a")
    page.wait_until_painted(other_than=first)
    for _ in range(5):
        page.page.keyboard.down("a")
    page.page.keyboard.up("a")
    page.wait_until_saved()
    assert [line["row_id"] for line in images.answers()] == [first]


def test_digits_choose_the_models_guesses_and_classes(browser: Any, images: ReviewProcess) -> None:
    """Of three classes, 1 and 2 are the likeliest of the row; bar, cross and disc have always 3, 4 and 5."""
    page = opened(browser, images)
    page.use_mode("label")
    guesses = [page.page.locator(f"#guesses button:nth-child({number}) > span").inner_text() for number in (1, 2)]
    assert len(set(guesses)) == 2 and set(guesses) < {"bar", "cross", "disc"}
    page.press("1")
    second = page.page.locator("#guesses button:nth-child(2) > span").inner_text()
    page.press("2", "3", "4", "5")
    best = page.page.locator("#guesses button:nth-child(1) > span").inner_text()
    page.press("ArrowRight")
    page.wait_until_saved()
    assert [line["label"] for line in images.answers()] == [guesses[0], second, "bar", "cross", "disc", best]


def test_type_ahead_chooses_a_class_by_its_name(browser: Any, images: ReviewProcess) -> None:
    """The slash starts it, Enter takes the first match, and it stays for the next row until Escape."""
    page = opened(browser, images)
    page.use_mode("label")
    page.page.keyboard.press("/")
    page.page.keyboard.type("cro")
    page.press("Enter")
    page.page.keyboard.type("IS")
    page.press("Enter")
    page.page.keyboard.press("Escape")
    page.press("u")
    page.wait_until_saved()
    assert [line.get("label") for line in images.answers()] == ["cross", "disc", None]


def test_a_grid_accepts_the_rest_by_one_key(browser: Any, images: ReviewProcess) -> None:
    """Marked rows are rejected or bad, all others get the class; undo takes the whole grid back, and redo restores it."""
    page = opened(browser, images)
    first = page.use_mode("grid")
    ids = [button.get_attribute("data-id") for button in page.page.locator(".cell").all()]
    label = page.text("#asked b")
    assert len(ids) > 3
    page.page.keyboard.press("2")
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("b")
    page.page.locator(".cell").nth(0).click()
    page.page.locator(".cell").nth(0).click()
    assert f"{len(ids) - 2}" in page.text("#answers .yes")
    page.page.keyboard.press("Enter")
    page.wait_until_saved()
    answers = images.answers()
    expected = dict.fromkeys(ids, "label") | {ids[1]: "reject", ids[2]: "bad"}
    assert {line["row_id"]: line["answer"] for line in answers} == expected and len(answers) == len(ids)
    assert {line["label"] for line in answers if line["answer"] == "label"} == {label}
    assert len({line["batch"] for line in answers}) == 1
    page.page.keyboard.press("z")
    assert page.wait_until_painted() == first
    page.wait_until_saved()
    assert set(images.lines()[-1]["answer_ids"]) == {line["id"] for line in answers}
    page.page.keyboard.press("y")
    page.page.wait_for_timeout(300)
    page.wait_until_saved()
    assert images.lines()[-1]["kind"] == "redo"


def test_undo_and_redo_go_back_and_forth_without_limit(browser: Any, images: ReviewProcess) -> None:
    """Undo shows the rows again, the latest first; redo restores them; a new answer replaces an undone one."""
    page = opened(browser, images)
    page.use_mode("verify")
    rows = page.press("a", "x", "a")
    after = page.row
    for row_id in reversed(rows):
        page.page.keyboard.press("z")
        page.page.wait_for_selector(f"body[data-painted='{row_id}']")
    assert "your answer was" in page.text("#about")
    page.page.keyboard.press("z")
    page.page.wait_for_selector("#toast.visible:has-text('nothing to undo')")
    for row_id in (*rows[1:], after):
        page.page.keyboard.press("y")
        page.page.wait_for_selector(f"body[data-painted='{row_id}']")
    page.page.keyboard.press("Backspace")
    page.page.wait_for_selector(f"body[data-painted='{rows[2]}']")
    page.press("u")
    page.wait_until_saved()
    assert [line["kind"] for line in images.lines()] == ["answer"] * 3 + ["undo"] * 3 + ["redo"] * 3 + [
        "undo",
        "answer",
    ]


def test_a_flag_keeps_its_note(browser: Any, images: ReviewProcess) -> None:
    """F opens the note, in which letters are text; Escape closes it without an answer, Enter flags the row."""
    page = opened(browser, images)
    first = page.use_mode("verify")
    page.page.keyboard.press("f")
    page.page.keyboard.type("a note, canceled")
    page.page.keyboard.press("Escape")
    page.page.wait_for_selector("#note", state="hidden")
    assert page.row == first
    page.page.keyboard.press("f")
    page.page.keyboard.type("xbu <b>?")
    page.page.keyboard.press("Enter")
    page.wait_until_painted(other_than=first)
    page.wait_until_saved()
    assert [(line["row_id"], line["answer"], line["note"]) for line in images.answers()] == [
        (first, "flag", "xbu <b>?")
    ]


def test_a_class_can_be_added_while_labeling(browser: Any, images: ReviewProcess) -> None:
    """F2 opens the classes; the new one is in the log, on the page, and chosen by a click, with the row unchanged."""
    page = opened(browser, images)
    first = page.use_mode("label")
    page.page.keyboard.press("F2")
    page.page.fill("#new-classes", "ring\n<b>star</b>")
    page.page.click("#editor-save")
    page.page.wait_for_selector("#editor", state="hidden")
    assert page.row == first
    page.page.locator("#labels button", has_text="<b>star</b>").click()
    page.wait_until_painted(other_than=first)
    page.wait_until_saved()
    assert [line["kind"] for line in images.lines()] == ["classes", "answer"]
    assert images.lines()[0]["new"] == ["ring", "<b>star</b>"]
    assert (images.answers()[0]["row_id"], images.answers()[0]["label"]) == (first, "<b>star</b>")


def test_a_change_of_the_order_keeps_the_row_on_the_screen(browser: Any, images: ReviewProcess) -> None:
    """Only rows that are fetched later are in the new order."""
    page = opened(browser, images)
    first = page.use_mode("verify")
    order = page.page.input_value("#order")
    page.page.keyboard.press("o")
    page.page.wait_for_timeout(500)
    assert page.page.input_value("#order") != order
    assert page.row == first
    page.press("a")
    page.wait_until_saved()
    assert images.answers()[0]["row_id"] == first


def test_every_row_gets_one_answer_and_then_nothing_is_left(browser: Any, images: ReviewProcess) -> None:
    """24 rows, 24 answers about different rows, and a page that says so."""
    page = opened(browser, images)
    page.use_mode("verify")
    for _ in range(60):
        if page.page.locator("#cover").is_visible():
            break
        row_id = page.row
        page.page.keyboard.press("a")
        page.page.wait_for_selector(f"body:not([data-painted='{row_id}']):not([data-painted='']), #cover:not([hidden])")
    page.page.wait_for_selector("#cover:has-text('Nothing left to review')")
    page.wait_until_saved()
    assert len(images.answers()) == len({line["row_id"] for line in images.answers()}) == 24


def test_zoom_contrast_and_flicker(browser: Any, images: ReviewProcess) -> None:
    """E enlarges, the wheel more, C stretches the brightness to the whole range, and the next row starts unzoomed."""
    page = opened(browser, images)
    page.use_mode("verify")
    page.page.keyboard.press("e")
    assert "scale(2.5)" in page.page.locator(".canvas").evaluate("element => element.style.transform")
    page.page.keyboard.press("c")
    assert float(str(page.page.locator("#contrast-stretch feFuncR").get_attribute("slope"))) > 1
    assert "contrast-stretch" in page.page.locator(".canvas img").evaluate("image => getComputedStyle(image).filter")
    page.press("a")
    assert page.page.locator(".canvas").evaluate("element => element.style.transform") == ""
    page.page.keyboard.press("v")
    page.page.wait_for_selector(".other, #toast.visible:has-text('neighbor')", state="attached")


def test_the_sheet_and_the_screen_show_the_keys(browser: Any, images: ReviewProcess) -> None:
    """The question mark opens and closes the sheet, keys do not answer meanwhile, and buttons show their keys."""
    page = opened(browser, images)
    first = page.use_mode("verify")
    page.page.keyboard.press("?")
    sheet = page.text("#sheet")
    for key in ("left Ctrl", "right Ctrl", "Space", "Backspace", "Enter", "←", "Z", "F2"):
        assert key in sheet
    page.page.keyboard.press("a")
    page.page.keyboard.press("?")
    assert not page.page.locator("#sheet").is_visible()
    assert page.row == first
    assert page.text("#answers .yes kbd") == "left Ctrl"


def test_remapped_keys_are_used(browser: Any, images: ReviewProcess) -> None:
    """`review: keys:` replaces the keys of an action on the page and on its buttons."""
    images.stop()
    set_value(images.workspace, ["review", "keys"], {"accept": ["KeyJ"]})
    images.start()
    page = opened(browser, images)
    first = page.use_mode("verify")
    page.page.keyboard.press("a")
    page.page.wait_for_timeout(200)
    assert page.row == first
    page.press("j")
    page.wait_until_saved()
    assert [line["answer"] for line in images.answers()] == ["label"]
    assert page.text("#answers .yes kbd") == "J"


def test_texts_and_class_names_are_never_markup(browser: Any, texts: ReviewProcess) -> None:
    """Scripts, images and tags of data are shown as text, long names do not widen the page, and nothing runs."""
    page = opened(browser, texts)
    page.use_mode("label")
    seen = []
    for _ in range(9):
        seen.append(page.text("#stage"))
        assert page.page.evaluate("document.documentElement.scrollWidth") <= 1280
        page.press("u")
    seen.append(page.text("#stage"))
    assert any(SCRIPT in text for text in seen)
    assert any(re.search(r"Cut: only the first \d+,000 characters", text) for text in seen)
    labels = page.page.locator("#labels button > span").all_text_contents()
    assert {MARKUP_CLASS, LONG_CLASS} <= set(labels)
    assert page.page.locator("#stage script, #stage img, #labels img").count() == 0
    assert page.page.title() != "changed"
    assert page.problems == []


def test_a_thousand_classes_are_found_by_typing(browser: Any, texts: ReviewProcess, tmp_path: Path) -> None:
    """All are on the page, which does not become wider; some letters of a name and Enter choose it."""
    copy = Path(shutil.copytree(texts.workspace, tmp_path / "many", symlinks=True))
    shutil.rmtree(Workspace(copy).reviews, ignore_errors=True)
    set_value(copy, ["review", "classes"], [f"topic {number:03d}" for number in range(1_000)])
    with reviewing(copy) as review:
        page = opened(browser, review)
        page.use_mode("label")
        assert page.page.locator("#labels button").count() >= 1_000
        assert page.page.evaluate("document.documentElement.scrollWidth") <= 1280
        page.page.keyboard.press("t")
        page.page.keyboard.type("777")
        page.press("Enter")
        page.wait_until_saved()
        assert [line["label"] for line in review.answers()] == ["topic 777"]


@pytest.mark.parametrize("mode", ["verify", "label", "grid"])
def test_the_page_fits_a_phone(browser: Any, images: ReviewProcess, mode: str) -> None:
    """390 pixels wide: nothing is wider, all answers are on the screen, and swipes to both sides answer."""
    page = opened(browser, images, **PHONE)
    first = page.use_mode(mode)
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 390
    for button in page.page.locator("#answers button").all():
        box = button.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["y"] + box["height"] <= 844
    if mode != "verify":
        return
    touch = page.page.context.new_cdp_session(page.page)
    swipe(touch, 100, 300)
    second = page.wait_until_painted(other_than=first)
    swipe(touch, 300, 100)
    page.wait_until_painted(other_than=second)
    page.wait_until_saved()
    assert [(line["row_id"], line["answer"]) for line in images.answers()] == [(first, "label"), (second, "reject")]


def swipe(touch: Any, start: int, end: int) -> None:
    """A finger that moves across the image."""
    points = [start + (end - start) * step / 5 for step in range(6)]
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": points[0], "y": 300}]})
    for x in points[1:]:
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x, "y": 300}]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_colors_follow_the_system_and_the_key(browser: Any, images: ReviewProcess) -> None:
    """Dark with a dark system; D goes on to light, which a reload keeps."""
    page = opened(browser, images, color_scheme="dark")
    colors = "getComputedStyle(document.body).backgroundColor"
    dark = page.page.evaluate(colors)
    page.page.keyboard.press("d")
    light = page.page.evaluate(colors)
    assert sum(map(int, re.findall(r"\d+", dark)[:3])) < 150 < 600 < sum(map(int, re.findall(r"\d+", light)[:3]))
    page.page.reload()
    page.wait_until_painted()
    assert page.page.evaluate(colors) == light


def test_a_screen_reader_hears_the_question(browser: Any, images: ReviewProcess) -> None:
    """A live region has the question of each row; all buttons and fields have a name, and the image a text."""
    page = opened(browser, images)
    page.use_mode("verify")
    assert page.text("#announcer").startswith("Is this ")
    assert page.page.get_attribute("#announcer", "aria-live") == "polite"
    assert page.page.get_attribute(".canvas img", "alt")
    unnamed = "[...document.querySelectorAll('button, select, input, textarea')].filter(element => !element.textContent.trim() && !element.labels?.length && !element.ariaLabel).length"
    assert page.page.evaluate(unnamed) == 0
    page.use_mode("grid")
    page.page.keyboard.press("2")
    assert page.page.locator(".cell").nth(1).get_attribute("aria-pressed") == "true"
    assert "marked" in page.text("#announcer")


def test_a_missing_image_can_be_answered(browser: Any, images: ReviewProcess) -> None:
    """The page says so and waits for a key."""
    context = browser.new_context()
    context.route("**/image/**", lambda route: route.fulfill(status=404))  # as the server answers
    page = ReviewPage(context, images.url())
    first = page.use_mode("verify")
    assert "cannot be read" in page.text("#stage")
    page.press("b")
    page.wait_until_saved()
    assert [(line["row_id"], line["answer"]) for line in images.answers()] == [(first, "bad")]


def test_a_link_opens_its_row(browser: Any, images: ReviewProcess) -> None:
    """/item/<row id> of the report shows that row first."""
    page = opened(browser, images)
    page.use_mode("label")
    linked = page.press("s", "s", "s")[2]
    page.wait_until_saved()
    page.page.goto(images.url(path=f"/item/{linked}"))
    assert page.wait_until_painted() == linked


def test_without_javascript_the_page_names_the_terminal(browser: Any, images: ReviewProcess) -> None:
    """And shows nothing that would not work."""
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(images.url())
    assert "seedling review --terminal" in page.inner_text("body")
    assert not page.locator("#app").is_visible()


def test_a_wrong_token_is_refused(browser: Any, images: ReviewProcess) -> None:
    """With a sentence, for the page and for the API."""
    page = browser.new_page()
    response = page.goto(re.sub(r"token=.*", "token=wrong", images.url()))
    assert response.status == 403 and "token" in page.inner_text("body")
    assert page.request.get(f"http://127.0.0.1:{images.port}/api/items").status == 403

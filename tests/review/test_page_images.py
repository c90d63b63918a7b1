"""Images of the review page while the server is away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from review_pages import ReviewPage, reviewing

pytestmark = pytest.mark.slow


def test_an_image_that_cannot_be_loaded_is_awaited_and_not_called_bad(context: Any, image_workspace: Path) -> None:
    """With the server away, keys go on until the loaded rows are used up; then the page waits, and goes on with it."""
    with reviewing(image_workspace) as review:
        page = ReviewPage(context, review.url())
        page.use_mode("verify")
        page.page.wait_for_timeout(500)
        review.stop()
        answered = 0
        while page.page.locator("#stage .wait").count() == 0:
            page.page.keyboard.press("a")
            page.page.wait_for_timeout(300)
            answered += 1
            assert "bad data" not in page.text("#stage")
        page.page.wait_for_timeout(5_000)  # longer than a retry
        assert page.page.locator("#stage .missing").count() == 0
        review.start()
        page.wait_until_painted()
        page.wait_until_saved()
        assert page.page.locator("#stage img").evaluate("image => image.naturalWidth") > 0
        assert 0 < len(review.answers()) <= answered


def test_an_image_whose_first_request_is_cut_off_is_shown(context: Any, image_workspace: Path) -> None:
    """As by a change of the network: the file is not called gone."""
    cut_off: list[str] = []

    def cut_first(route: Any) -> None:
        if len(cut_off) < 3:
            cut_off.append(route.request.url)
            route.abort()
        else:
            route.continue_()

    context.route("**/image/**", cut_first)
    with reviewing(image_workspace) as review:
        page = ReviewPage(context, review.url())
        assert len(cut_off) == 3
        assert page.page.locator("#stage img").evaluate("image => image.naturalWidth") > 0
        assert page.page.locator(".missing").count() == 0

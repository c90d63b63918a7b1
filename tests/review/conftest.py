"""Debian's Chromium and a workspace of images, for the tests of the review page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from review_pages import LAUNCH, ask_in_order


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Chromium as playwright starts it; the tests of a module share it, because no other event loop runs beside it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium


@pytest.fixture(scope="module")
def browser(chromium: Any) -> Iterator[Any]:
    """A running Chromium."""
    browser = chromium.launch(**LAUNCH)
    yield browser
    browser.close()


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    """A new profile."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    yield context
    context.close()


@pytest.fixture
def image_workspace(finished_workspace: Path, tmp_path: Path) -> Path:
    """A workspace of images with a model, whose reviewers get each row once."""
    copy = Path(shutil.copytree(finished_workspace, tmp_path / "images", symlinks=True))
    ask_in_order(copy)
    return copy

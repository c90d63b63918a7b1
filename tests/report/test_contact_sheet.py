"""`seedling show`: the contact sheet has parents, augmented rows, recipes and rejected rows; a browser displays it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from seedling.config.params import set_value
from seedling.report.contact_sheet import in_words, sheet
from seedling.versioning.ledger import open_ledger


def seedling(workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "seedling.cli.main", *arguments, "--workspace", str(workspace)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_recipes_are_described_in_words() -> None:
    """A caption lists the operations that were applied, not those that were possible."""
    assert (
        in_words('{"operation":"transforms","policy":[],"seed":1,"applied":["Affine","SoftShadow"]}')
        == "affine, soft shadow"
    )
    assert in_words('{"operation":"transforms","policy":[],"seed":1,"applied":[]}') == "no operation"
    assert in_words('{"operation":"typo","share":0.15,"seed":4}') == "typo, 15% of the words"
    assert in_words('{"operation":"own","name":"rainy","seed":4}') == "rainy"
    assert in_words('{"operation":"translate","share":0.75}') == "translate, 75% of the way"
    assert in_words('{"operation":"fgsm","levels":6}') == "fgsm, 6 levels"
    assert in_words('{"operation":"deepfool","levels":6}') == "deepfool, at most 6 levels"
    assert in_words('{"operation":"cut_and_paste","blend":"poisson"}') == "cut and paste, poisson"


@pytest.mark.slow
def test_the_sheet_shows_augmented_rows_of_every_class(workspace: Path) -> None:
    """Three parents, one of each class, with two augmented rows each; before anything is augmented an error names the
    fix.
    """
    done = seedling(workspace, "show", "augment")
    assert done.returncode == 2
    assert "`seedling run` does" in " ".join(done.stderr.split())
    set_value(workspace, ["augment", "augmentations_per_row"], 2)
    for stage in ("scrape", "validate", "augment", "synthesize"):
        open_ledger(workspace).run(stage)
    contact_sheet = sheet(workspace / "generations", "augment", parents=3, rows_per_parent=5)
    assert sorted(group["parents"][0]["label"] for group in contact_sheet["groups"]) == ["bar", "cross", "disc"]
    assert all(
        len(group["rows"]) == 2 and group["rows"][0]["image"].startswith("data:") for group in contact_sheet["groups"]
    )
    done = seedling(workspace, "show", "synthesize", "--sources", "4")
    assert done.returncode == 0, done.stderr
    assert "have changed" not in done.stdout
    set_value(workspace, ["augment", "augmentations_per_row"], 3)
    assert "`seedling stage augment` to generate these rows again" in seedling(workspace, "show", "augment").stdout
    page = (workspace / "reports/contact_sheet_synthesize.html").read_text(encoding="utf-8")
    assert page.count('<section class="source') == 4
    assert re.search(r"\d+% (bar|cross|disc)", page)
    assert "mixup" in page

"""Images in ninety broken and unusual forms: each is a row or is rejected, for the reason that is its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile.image_corpus import KEPT, forms, write_corpus

from seedling.config.params import ScrapeParams, ValidateParams, WorkspaceConfig
from seedling.dataset.generation import Row, read, read_rejected
from seedling.scrape import scrape
from seedling.validate import validate
from seedling.validate.checks import check_row

FORMS = list(forms())
CONFIG = WorkspaceConfig(modality="image")


@pytest.mark.parametrize(("encoded", "outcome"), [form[2:] for form in FORMS], ids=[form[0] for form in FORMS])
def test_each_form_is_kept_or_rejected_for_its_reason(encoded: bytes, outcome: str) -> None:
    """By what validate looks at in a row by itself."""
    assert (
        check_row(Row("1", "train", origin="1", payload=encoded), params=ValidateParams(), config=CONFIG).reason or KEPT
    ) == outcome


def test_there_are_sixty_broken_forms_and_each_has_its_own_bytes() -> None:
    """So that none is hidden behind another as its copy."""
    assert len(FORMS) >= 60
    assert len({encoded for _, _, encoded, _ in FORMS}) == len({name for name, *_ in FORMS}) == len(FORMS)


@pytest.mark.slow
def test_a_folder_of_all_forms_is_read_and_every_file_is_accounted_for(tmp_path: Path) -> None:
    """By scrape and validate: each file is one row, kept or rejected as listed; none is lost, and nothing stops."""
    expected = write_corpus(tmp_path / "data")
    params = ScrapeParams.model_validate({"sources": [{"kind": "folder", "path": "."}]})
    scrape(params, CONFIG, data=tmp_path / "data", output=tmp_path / "scrape")
    validate(ValidateParams(), CONFIG, collected=tmp_path / "scrape", output=tmp_path / "validate")
    outcome = dict.fromkeys(read(tmp_path / "validate")["origin"], KEPT)
    for stage in ("scrape", "validate"):
        rejected = read_rejected(tmp_path / stage)
        outcome |= dict(zip(rejected["origin"], rejected["reason"], strict=True))
    copies = {
        "labeled/a/png_clear.png",
        "labeled/b/png_clear.png",
        "labeled/a/png_white.png",
        "labeled/b/png_white.png",
    }
    assert {name: outcome.get(name) for name in expected.keys() - copies} == {
        name: reason for name, reason in expected.items() if name not in copies
    }

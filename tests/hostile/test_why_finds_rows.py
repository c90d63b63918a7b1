"""`seedling why` finds a row by its name however accents are composed, and by its text; brackets in a name are not markup."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from seedling.dataset.generation import GenerationWriter, Row, identify
from seedling.errors import InputError
from seedling.row_story import show_story


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Three rows, one with a decomposed name, and two whose names a terminal would act on."""
    (tmp_path / "params.yaml").write_text("pipeline_version: 16\nmodality: text\nscrape: {sources: [{kind: folder}]}\n")
    names = [
        unicodedata.normalize("NFD", "labeled/café/été.txt"),
        "labeled/[old]/1.txt",
        "labeled/[old]/2\x1b[2J.txt",
    ]
    with GenerationWriter(tmp_path / "generations" / "scrape", stage="scrape", modality="text") as writer:
        for name in names:
            text = f"what lies in {name.split('/')[1]} {len(name)}"
            writer.keep(
                Row(
                    id=identify(text.encode()),
                    split="train",
                    label="a",
                    label_source="human",
                    origin=name,
                    payload=text,
                )
            )
        writer.close(rows_in=3, classes=["a"])
    return tmp_path


@pytest.mark.parametrize("question", ["labeled/café/été.txt", unicodedata.normalize("NFD", "été"), "what lies in café"])
def test_a_row_is_found_by_its_name_and_its_text(
    question: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Composed and decomposed, whole and in part."""
    show_story(workspace, question)
    assert "scrape: from labeled/cafe\u0301/e\u0301te\u0301.txt" in capsys.readouterr().out


def test_names_are_listed_as_they_are(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`[old]` stays, an escape sequence is written out."""
    show_story(workspace, "[old]")
    out = capsys.readouterr().out
    assert "2 rows match" in out
    assert "labeled/[old]/1.txt" in out
    assert r"labeled/[old]/2\x1b[2J.txt" in out
    with pytest.raises(InputError, match="an origin or text that contains it"):
        show_story(workspace, "nowhere")

"""What `seedling init` says about the rows that it found."""

from __future__ import annotations

from pathlib import Path

import pytest

from seedling.init.create import InitFindings, InitOptions, make_workspace


@pytest.mark.parametrize(
    ("classes", "line"),
    [
        (("rose", "tulip"), "Classes: rose, tulip; no row has a label."),
        (tuple(f"c{number:02}" for number in range(100)), " more; no row has a label."),
    ],
)
def test_the_given_names_are_the_classes_of_rows_without_labels(
    classes: tuple[str, ...], line: str, tmp_path: Path
) -> None:
    """Of many names, the first ones."""
    (tmp_path / "texts").mkdir()
    for number in range(3):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"text number {number}", encoding="utf-8")
    findings = InitFindings()
    options = InitOptions(classes=classes)
    make_workspace(tmp_path / "w", tmp_path / "texts", "text", options=options, findings=findings)
    lines = [text for text in findings.preview_lines if text.startswith("Classes:")]
    assert len(lines) == 1
    assert lines[0].endswith(line)

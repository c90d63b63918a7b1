"""Params.yaml: unknown keys, wrong values, and `effort`."""

from __future__ import annotations

from pathlib import Path

import pytest

from seedling.config.params import load, set_value
from seedling.errors import InputError

GOOD = """
modality: image  # a comment
effort: quick
scrape:
  sources:
    - {kind: folder, path: .}
"""


def write(folder: Path, text: str) -> Path:
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return folder


def test_a_small_file_loads_with_the_defaults(tmp_path: Path) -> None:
    """Omitted keys have their documented defaults."""
    params = load(write(tmp_path, GOOD))
    assert (params.effort, params.seed, params.validate_.folds, params.rounds) == ("quick", 0, 5, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "agument: {}\n", r"unknown key 'agument' \(did you mean 'augment'\?\)"),
        (GOOD + "validate: {fold: 3}\n", r"unknown key 'validate.fold' \(did you mean 'folds'\?\)"),
        (GOOD + "validate: {folds: 1}\n", r"'validate.folds': input should be greater than or equal to 2 \(it is 1\)"),
        (GOOD.replace("quick", "huge"), r"'effort': input should be 'quick', 'normal' or 'thorough' \(it is 'huge'\)"),
        (GOOD + "pipeline_version: 1\n", r"pipeline_version is 1, but this Seedling has \d+: run `seedling migrate`"),
        ("modality: [", "not readable YAML"),
        ("", "has no sections"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    """The error has the file, the key, the value and the most similar key."""
    with pytest.raises(InputError, match=message) as caught:
        load(write(tmp_path, text))
    assert "params.yaml" in str(caught.value)


def test_a_folder_without_params_is_not_a_workspace(tmp_path: Path) -> None:
    """The error names the fix."""
    with pytest.raises(InputError, match="seedling init"):
        load(tmp_path)


def test_setting_effort_keeps_comments(tmp_path: Path) -> None:
    """Only the value changes in the file."""
    write(tmp_path, GOOD)
    set_value(tmp_path, ["effort"], "thorough")
    text = (tmp_path / "params.yaml").read_text()
    assert load(tmp_path).effort == "thorough"
    assert text == GOOD.replace("quick", "thorough").lstrip("\n") or "# a comment" in text

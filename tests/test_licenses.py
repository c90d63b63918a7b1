"""docs/licenses.md names each installed package whose metadata mention the GPL."""

from __future__ import annotations

import re
from importlib.metadata import distributions
from pathlib import Path

PROJECT = Path(__file__).parents[1]
GPL = re.compile(r"GPL|GNU", re.IGNORECASE)


def test_each_package_under_the_gpl_is_named() -> None:
    """By its license expression, its license field's first line, or its classifiers."""
    text = (PROJECT / "docs" / "licenses.md").read_text(encoding="utf-8")
    gpl_packages = set()
    for package in distributions():
        metadata = package.metadata
        fields = [(metadata.get_all(name) or [""])[0] for name in ("License-Expression", "License")]
        licenses = [fields[0], fields[1].partition("\n")[0]]
        licenses += [
            classifier for classifier in metadata.get_all("Classifier") or [] if classifier.startswith("License ::")
        ]
        if any(GPL.search(license_text) for license_text in licenses):
            gpl_packages.add(metadata["Name"])
    assert "pygit2" in gpl_packages
    assert {name for name in gpl_packages if f"`{name}`" not in text} == set()

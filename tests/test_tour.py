"""The tour runs all stages in plain Python."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_tour_follows_an_image_to_the_report_without_prefect_and_dvc(tmp_path: Path) -> None:
    """In a process that cannot import either of them."""
    code = (
        "import runpy, sys\n"
        "sys.modules['prefect'] = sys.modules['dvc'] = None\n"
        "sys.argv = ['tour.py', sys.argv[1]]\n"
        f"runpy.run_path({str(PROJECT / 'examples' / 'tour.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "tour"], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tour" / "reports" / "report.html").is_file()
    lines = done.stdout.splitlines()
    assert lines[2:4] == [
        "scrape collects the rows of all sources into one Parquet table.",
        "  200 rows in, 200 kept, 0 rejected -> generations/scrape/",
    ]
    page = (PROJECT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    documented = page.split("```text\n")[1].split("\n```")[0].splitlines()
    assert [without_values(line) for line in documented[2:-1]] == [without_values(line) for line in lines[2:-1]]


def without_values(line: str) -> str:
    """The line without numbers, which differ between processors, and the reason of a decision."""
    return re.sub(r"[-+]?\d[\d.]*", "#", line.partition("accepted:")[0].partition("rejected:")[0])

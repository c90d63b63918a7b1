"""Seedling runs although the user's own modules have names such as `tasks` or `flows`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("module", ["tasks.py", "tasks/__init__.py", "flows.py", "flows/__init__.py"])
def test_modules_named_like_seedlings_folders_are_not_imported(tmp_path: Path, module: str) -> None:
    """As with invoke's tasks.py and PYTHONPATH=. in a Makefile: the only name that Seedling takes is `seedling`."""
    (tmp_path / module).parent.mkdir(exist_ok=True)
    (tmp_path / module).write_text("raise SystemExit('the wrong module was imported')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", str(ROOT)])}
    command = [sys.executable, "-P", "-m", "seedling", "status"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is this a Seedling workspace?" in done.stderr

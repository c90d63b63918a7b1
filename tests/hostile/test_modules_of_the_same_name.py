"""The command line starts although PYTHONPATH holds the user's own `tasks.py` or `flows` package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("module", ["tasks.py", "tasks/__init__.py", "flows.py", "flows/__init__.py"])
def test_modules_named_like_seedlings_packages_are_not_imported(tmp_path: Path, module: str) -> None:
    """As with invoke's tasks.py and PYTHONPATH=. in a Makefile; child processes find Seedling's packages first, too."""
    (tmp_path / module).parent.mkdir(exist_ok=True)
    (tmp_path / module).write_text("raise SystemExit('the wrong module was imported')\n")
    start = "import sys, seedling_start; sys.argv = ['seedling', *sys.argv[1:]]; seedling_start.main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", str(ROOT)])}
    command = [sys.executable, "-P", "-c", start, "status"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is this a Seedling workspace?" in done.stderr
    shown = "import tasks, flows; print(tasks.__file__, flows.__file__)"
    child = (
        "import seedling_start, subprocess, sys; seedling_start.prefer_own_packages(); "
        f"subprocess.run([sys.executable, '-P', '-c', {shown!r}], check=True)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", child], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(ROOT / "tasks" / "__init__.py"), str(ROOT / "flows" / "__init__.py")]

"""constraints-hashes.txt is of the packages of constraints.txt, and pip's report is turned into its lines."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
SCRIPT = PROJECT / "deploy" / "locked_requirements.py"


def pins(name: str) -> set[str]:
    """The lines that name a package and its version."""
    lines = (PROJECT / name).read_text(encoding="utf-8").splitlines()
    named = [line.split(" \\")[0].strip().partition("==") for line in lines if "==" in line]
    return {f"{re.sub('[-_.]+', '-', package).lower()}=={version}" for package, _, version in named}


def locked(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What the script prints for names or a report."""
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


def test_each_pin_has_hashes() -> None:
    """All but torch's, whose build depends on the machine; no address of an index is in the file."""
    pinned = {pin for pin in pins("constraints.txt") if not pin.startswith("torch==")}
    assert pins("constraints-hashes.txt") == pinned, "run `make hashes`"
    text = (PROJECT / "constraints-hashes.txt").read_text(encoding="utf-8")
    assert text.count("--hash=sha256:") > len(pinned)
    assert "://" not in text


def test_a_report_of_pip_becomes_locked_lines(tmp_path: Path) -> None:
    """Names in any spelling; torch and Seedling are left out; a package without a hash is an error."""
    report = tmp_path / "report.json"
    names = ["Pillow", "ruamel.yaml", "torch", "seedling-ml"]
    report.write_text(json.dumps({"install": [{"metadata": {"name": name, "version": "1"}} for name in names]}))
    done = locked(str(report))
    assert done.returncode == 0
    assert [line.partition("==")[0] for line in done.stdout.splitlines() if "==" in line] == ["pillow", "ruamel-yaml"]
    assert done.stdout.count("--hash=sha256:") > 2
    missing = locked("pillow", "no-such-package")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "No hash in constraints-hashes.txt for: no-such-package" in missing.stderr

"""Prints the hashed lines of constraints-hashes.txt for packages.

The packages are those that `pip install --dry-run --report FILE` lists, or those named.

python deploy/locked_requirements.py REPORT.json   or   python deploy/locked_requirements.py NAME...

torch is left out: its hash depends on the build that fits the machine. So is Seedling itself.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

LOCK = Path(__file__).parents[1] / "constraints-hashes.txt"
WITHOUT_HASH = {"seedling-ml", "torch"}


def normalized(name: str) -> str:
    """The name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(lock: str) -> dict[str, str]:
    """Name → its requirement with all its hashes."""
    requirements = re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"(?m)^#.*\n", "", lock).strip())
    return {normalized(requirement.partition("==")[0]): requirement for requirement in requirements}


def names_in(report: str) -> list[str]:
    """The packages that pip would install."""
    return [package["metadata"]["name"] for package in json.loads(report)["install"]]


def main(arguments: list[str]) -> int:
    """Prints the lines; says which packages have none, and then fails."""
    is_report = len(arguments) == 1 and arguments[0].endswith(".json")
    names = names_in(Path(arguments[0]).read_text(encoding="utf-8")) if is_report else arguments
    requirements = locked(LOCK.read_text(encoding="utf-8"))
    wanted = sorted({normalized(name) for name in names} - WITHOUT_HASH)
    if missing := [name for name in wanted if name not in requirements]:
        print(f"No hash in {LOCK.name} for: {', '.join(missing)}. Run `make hashes`.", file=sys.stderr)
        return 1
    print("\n".join(requirements[name] for name in wanted))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Starts the command line, also where the user's own modules are named `tasks` or `flows` as Seedling's packages are.

A Makefile that sets PYTHONPATH=. beside invoke's tasks.py would otherwise put that file in their place.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

PACKAGES = ("flows", "tasks")


def prefer_own_packages() -> None:
    """Puts Seedling's folder first in `sys.path`, and in PYTHONPATH for child processes, where another module would be found before its packages."""
    root = Path(__file__).resolve().parent
    found = [PathFinder.find_spec(name) for name in PACKAGES]
    if all(spec and spec.origin and Path(spec.origin).resolve().parent.parent == root for spec in found):
        return
    sys.path.insert(0, str(root))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))


def main() -> None:
    """The console script."""
    prefer_own_packages()
    from flows.command_line import main as run

    run()


if __name__ == "__main__":
    main()

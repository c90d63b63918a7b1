"""Runs the stage in the current workspace: `python -m tasks.evaluate`, which is what dvc.yaml calls."""

from tasks.stages import main

main("evaluate")

"""Runs the stage in the current workspace: `python -m tasks.train`, which is what dvc.yaml calls."""

from tasks.stages import main

main("train")

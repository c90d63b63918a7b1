"""Runs the stage in the current workspace: `python -m tasks.augment`, which is what dvc.yaml calls."""

from tasks.stages import main

main("augment")

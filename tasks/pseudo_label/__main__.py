"""Runs the stage in the current workspace: `python -m tasks.pseudo_label`, which is what dvc.yaml calls."""

from tasks.stages import main

main("pseudo_label")

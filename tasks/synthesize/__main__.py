"""Runs the stage in the current workspace: `python -m tasks.synthesize`, which is what dvc.yaml calls."""

from tasks.stages import main

main("synthesize")

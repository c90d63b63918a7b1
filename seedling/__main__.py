"""Runs the command line: `python -m seedling`."""

from seedling.cli.main import main

main()

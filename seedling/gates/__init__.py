"""The quality gates: Great Expectations over a stage's rows, wherever they are. The only package that imports great_expectations and duckdb.

asking     gates.yaml, the gates that always hold, what a gate says and where that is written
columns    what a gate sees: a generation's columns, and those that are made where they are named
on_disk    rows that are read when they are asked for
engine     Great Expectations over them
own        a user's expectations.py

gates.yaml lists, a stage, expectations by Great Expectations' own names with their own arguments and a severity. The gates in `asking.ALWAYS`
stand before them and cannot be switched off.
"""

import logging

# It warns that Seedling's metrics replace its own, which is what they are for, and about its own defaults.
logging.getLogger("great_expectations").setLevel(logging.ERROR)

"""Quality gates: Great Expectations checks of a stage's rows.

The only package that imports great_expectations and duckdb.

checking            runs a gate: gates.yaml, the required expectations, the results and the failure message
columns             the columns that a gate sees: those of the generation, and those computed if a gate names them
conditions          which row conditions and patterns gates.yaml may contain
engine              Great Expectations' engine for rows on disk
history             the results of all gates over time
limited_patterns    regular expressions and JSON schemas with a time limit
on_disk             rows that are read on demand
store               Great Expectations' own files
user_expectations   a user's expectations.py

gates.yaml lists expectations per stage, by Great Expectations' names, with their arguments and a severity. The
expectations in `checking.REQUIRED_EXPECTATIONS` run before them and cannot be switched off.
"""

import logging

# Great Expectations warns that Seedling's metrics replace its own, which is intended, and about its own defaults.
logging.getLogger("great_expectations").setLevel(logging.ERROR)

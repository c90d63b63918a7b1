"""Review: people check rows by keyboard, their answers are logged, and every later run uses them.

`log.py` keeps the answers, `decisions.py` turns them into one decision per row, which validate applies. `items.py`,
`orders.py` and `queue.py` select what to ask next, `server.py` serves the page, and `statistics.py` measures labels,
pseudo-labels and reviewers.
"""

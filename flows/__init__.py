"""Prefect flows: which stage runs when, for whom, and what Prefect shows of it."""

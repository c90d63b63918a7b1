"""Prefect flows: the order of the stages, schedules, and what Prefect's UI shows of a run."""

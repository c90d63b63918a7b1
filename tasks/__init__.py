"""Prefect tasks, one per stage of the pipeline: each calls into the library, and reports the outcome to Prefect."""

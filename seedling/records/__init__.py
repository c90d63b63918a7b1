"""Readers and writers of the records of stages and runs."""

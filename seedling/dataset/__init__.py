"""The record: how a dataset generation lies on disk."""

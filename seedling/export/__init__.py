"""Exports of the dataset and of the model."""

"""The formats of output files: the command line offers them, and prediction and export write them."""

from __future__ import annotations

from enum import StrEnum


class DatasetForm(StrEnum):
    """Layout of an exported dataset."""

    folders = "folders"
    table = "table"
    huggingface = "huggingface"


class PredictionFormat(StrEnum):
    """Format of the predictions."""

    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"


def probability_column(class_name: str) -> str:
    """The column with the probabilities of a class. No other column of the predictions begins with `p_`."""
    return f"p_{class_name}"


class BoxFormat(StrEnum):
    """A format of annotation files."""

    coco = "coco"
    yolo = "yolo"
    voc = "voc"
    csv = "csv"
    hugging_face = "hugging-face"
    label_studio = "label-studio"

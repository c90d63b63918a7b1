"""Boxes around objects in images: the record of an annotated image, geometry, and the formats of annotation files."""

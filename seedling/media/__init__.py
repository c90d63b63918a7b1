"""Images and texts: decoding, normalization and quality metrics."""

"""Images and texts: decoding, normalization, measures of quality."""

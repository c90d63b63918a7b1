"""Dataset generations on disk: their format, reading and writing."""

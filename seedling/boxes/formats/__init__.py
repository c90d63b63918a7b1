"""Readers and writers of annotation formats. A reader never raises an error for a single bad box: it reports it."""

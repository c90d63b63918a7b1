"""Reads and lists the files of a workspace, which may be damaged or hostile."""

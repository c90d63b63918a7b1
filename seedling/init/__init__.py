"""`seedling init`: creates a workspace from a folder or a table."""

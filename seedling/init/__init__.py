"""`seedling init`: makes a workspace of a folder or a table."""

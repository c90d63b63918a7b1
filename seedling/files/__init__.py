"""Reading and listing files of a workspace, which may be damaged or hostile."""

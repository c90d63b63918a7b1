"""HTTP servers: of the model, and of the pages."""

"""Typed readers of what stages and runs wrote."""

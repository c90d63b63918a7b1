"""params.yaml as frozen pydantic models."""

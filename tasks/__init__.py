"""One Prefect task per stage of the pipeline."""

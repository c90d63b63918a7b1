"""Train trustworthy image and text classifiers from few or noisy labels."""

import os
from typing import TYPE_CHECKING, Any

from seedling.import_path import remove_working_folder
from seedling.versioning.git_identity import drop_hook_variables

if TYPE_CHECKING:
    from seedling.python_api import GrowResult, grow

__all__ = ["GrowResult", "grow"]

remove_working_folder()
drop_hook_variables()

# Set before the libraries are imported: no usage statistics, no update checks.
for _name, _value in {
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}.items():
    os.environ.setdefault(_name, _value)


def __getattr__(name: str) -> Any:
    """The Python API, imported when it is first used: it takes pandas and DVC along."""
    if name in __all__:
        from seedling import python_api

        return getattr(python_api, name)
    raise AttributeError(f"module 'seedling' has no attribute '{name}'")

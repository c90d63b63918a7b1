"""The work: seven stages and the ground that they share. Imports neither prefect, nor dvc, nor flows."""

import os

from tasks.safe_path import leave_out_working_folder

leave_out_working_folder()

# Set before the libraries are imported, for the users' peace: no usage statistics, no update checks.
for _name, _value in {
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}.items():
    os.environ.setdefault(_name, _value)

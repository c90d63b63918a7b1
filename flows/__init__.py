"""When, in what order, for whom: the Prefect flow, the DVC ledger, the command line. Imports tasks; tasks import nothing here."""

import os

from flows.git_identity import drop_hook_variables
from tasks.safe_path import leave_out_working_folder

leave_out_working_folder()
drop_hook_variables()

# Set before the libraries are imported, for the users' peace: no usage statistics.
for _name, _value in {
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}.items():
    os.environ.setdefault(_name, _value)

"""Running independent work on threads, processes, launchers and clusters."""

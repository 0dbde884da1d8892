"""Many runs: what is missing, what it costs, and papermill."""

"""The contract between operator, trainer and user: models, names and exit codes.

Importing this package loads nothing: the agent imports `trainrun_api.contract` with the standard library alone.
"""

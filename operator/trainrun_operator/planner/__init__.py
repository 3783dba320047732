"""The planner: tokens, days, devices, money, memory, checkpoints and spares of a run, before it is paid for. Pure.

Every number from elsewhere stands in `hardware.py` or `rates.py` with its source; `plan.py` puts a plan together.
"""

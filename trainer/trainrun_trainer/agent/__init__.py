"""The pod's first process: owns the process tree, answers for it, and exits by contract.

Standard library only, Python 3.9 or newer: it is also shipped as one zipapp into images that are not ours.
"""

"""Turns TrainingRuns into PyTorchJobs and brings them back after faults."""

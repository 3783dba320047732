"""Trains on CUDA, Neuron or CPU. Importing this package loads nothing: the agent must start without torch."""

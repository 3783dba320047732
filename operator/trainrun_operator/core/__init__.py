"""The decision core: pure functions of what was observed. No clock, no I/O, no randomness, no logging."""

"""Stages of a run: what each has left in the store, what it is made from, and how each kind is run (docs/stages.md)."""

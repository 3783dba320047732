"""What a run was made of and what came of it, in one file; and a new run made from such a file (S2-12)."""

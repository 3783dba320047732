"""Text to documents: read, extract, filter, dedupe, tokenise. Imports no torch: its processes stay small."""

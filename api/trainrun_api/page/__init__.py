"""Pages for people, written by both sides: one self-contained file each, standard library only, everything escaped."""

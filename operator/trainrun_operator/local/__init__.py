"""Local mode: the same decision code and the same pods, as processes of this machine instead of a cluster."""

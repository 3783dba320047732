"""Pages about finished stages."""

"""No test asserts how fast it is: a property that takes long on a busy machine still holds."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

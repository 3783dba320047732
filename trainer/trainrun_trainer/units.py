"""How far a piece of work is that has no optimizer steps: a set measured, a file written or read."""

from __future__ import annotations


class Units:
    """Told by the work, after each unit; here nobody listens, as when a command is run by hand.

    `done` may raise to end the work between two units.
    """

    def expect(self, number: int) -> None:
        """So many units are to come, beyond those that were announced already."""

    def done(self) -> None:
        """One more unit is complete."""


NOBODY = Units()

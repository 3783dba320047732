"""Imported by the fork server only, before everything else: ties the server to the launcher.

Workers are children of the fork server, not of the launcher; kill -9 of the launcher would leave both alive. This is
the one module whose import has an effect, because an import is all that a fork server does for us.
"""

from __future__ import annotations

import gc

from trainrun_trainer.agent import proctree

IS_TIED = proctree.die_with_parent()
"""The kernel ends the fork server with the launcher, and each worker (launcher_worker) with the fork server."""

gc.disable()  # the imports that follow make no garbage worth looking for; launcher_worker enables it again

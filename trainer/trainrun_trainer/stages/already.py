"""Whether this process's stage is done already, without torch: a launcher asks while its fork server imports."""

from __future__ import annotations

from trainrun_api.contract import Outcome

from trainrun_trainer.environment import ToolEnvironment, current
from trainrun_trainer.stages import train_stage, work
from trainrun_trainer.stages.records import DONE, Records, shared_root
from trainrun_trainer.stores import open_storage


def done_already() -> Outcome | None:
    """What the workers would return at once; None if there is something to do. Raises TrainerError and OSError.

    Models and texts are not looked at before there is a record of something done: a first start reads them only once.
    """
    env = current()
    if env.stage is None:
        return None
    records = Records(shared_root(env.stage.root, open_storage), env.stage.name)
    if all(record.state != DONE for record in records.all()):
        return None
    if isinstance(env, ToolEnvironment):
        return work.done_before(records, work.work_of(env, records.root, records.seen()), env)
    return train_stage.done_before(env, records)

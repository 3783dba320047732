"""A program as people write them for plain torchrun: DistributedDataParallel, and a checkpoint of its own.

    torchrun train.py FOLDER

It knows nothing of trainrun. FOLDER gets `last.pt` after every 10 steps, and a line per step: step, exact loss.
"""

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

TOTAL_STEPS = 60
SAVE_EVERY = 10
STEP_SECONDS = 0.1


def main(folder: Path) -> None:
    """Train to the end, from the last checkpoint if there is one."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    folder.mkdir(exist_ok=True)
    torch.manual_seed(1)
    model = DistributedDataParallel(torch.nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    start, last = 0, folder / "last.pt"
    if last.exists():
        saved = torch.load(last, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["step"]
    for step in range(start + 1, TOTAL_STEPS + 1):
        rows = torch.randn(8, 32, generator=torch.Generator().manual_seed(1000 * step + rank))
        optimizer.zero_grad()
        loss = (model(rows) - rows.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        dist.all_reduce(loss.detach())
        time.sleep(STEP_SECONDS)
        if rank == 0:
            with (folder / "losses").open("a") as lines:
                lines.write(f"{step} {loss.item().hex()}\n")
            if step % SAVE_EVERY == 0:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
                torch.save(state, folder / "new.pt")
                os.replace(folder / "new.pt", last)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

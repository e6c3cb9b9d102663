"""One of several processes that train together: the second is killed in its first life, in the middle of a training."""

import os
import signal
import sys

import torch.distributed as dist

from classify.finetune import torchrun
from classify.finetune.training import Training

AT = 3
"""Steps that are taken before."""
take = Training.take


def dying(self: Training, batch) -> None:
    if self.step == AT and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        dist.barrier()  # the first has said and kept all that went before
        if self.ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    take(self, batch)


if __name__ == "__main__":
    Training.take = dying
    torchrun.main(*sys.argv[1:])

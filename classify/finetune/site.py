"""Where trainings are done: on which examples, on which device, and beside which features their checkpoints lie."""

from dataclasses import dataclass, field
from pathlib import Path

from classify.finetune import checkpoint
from classify.finetune.examples import Examples
from classify.finetune.job import Device, Job, Outcome, digest_of
from classify.finetune.log import Log
from classify.finetune.loop import train
from classify.finetune.network import Network
from classify.finetune.ranks import Ranks
from classify.finetune.search import Searched, settle


@dataclass(frozen=True, eq=False)
class Site:
    """Does one training after the other. `root` is the folder of the features; `folders` are those of checkpoints."""

    examples: Examples
    device: Device
    log: Log
    root: Path
    folders: set[Path] = field(default_factory=set)

    def run(self, network: Network, job: Job, stop_at: int | None = None) -> Outcome:
        """Train to the end, or to a step; what an earlier call of the same training has done is not done again."""
        digest = digest_of(job, network.live(), network.frozen_digest(), self.device, Ranks.here().size)
        folder = checkpoint.training_folder(self.root, digest)
        self.folders.add(folder)
        return train(network, self.examples, job, self.device, folder, self.log, stop_at=stop_at)

    def settle(self, network: Network, job: Job, *, searching: bool) -> Searched:
        """Train with the setting of a job, or, `searching`, with the best that is found."""
        return settle(job, lambda each, stop_at: self.run(network, each, stop_at), self.log, searching=searching)

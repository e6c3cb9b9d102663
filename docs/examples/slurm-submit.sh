#!/bin/bash
# The array, and the commit once all of its tasks have ended, well or not: what they wrote is kept either way.
set -euo pipefail
cd "$(dirname "$0")"

parts=$(sbatch --parsable slurm-part.sbatch)
sbatch --dependency="afterany:$parts" slurm-commit.sbatch

#!/usr/bin/env bash
# Makes the shipped world: a causal teacher of the river, its one-step student, and what stands beside
# it; config, log and figures beside each.
#
#     bash scripts/ship_world.sh           about three hours on two cores, every step resumes
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

genkit train --data world --out runs/world --resume --evaluate-n 0
for method in consistency dmd2 regression; do
  genkit train-distill "$method" --teacher runs/world/pipeline --out "runs/world-$method" --resume \
    --evaluate-n 0
done
python scripts/ship.py runs/world-consistency world-onestep
genkit evaluate world-onestep --against runs/world/pipeline -n 64 --student-steps 1,2,4 \
  --steps 1,2,4,20 --beside runs/world-dmd2/pipeline,runs/world-regression/pipeline \
  --json docs/figures/world-onestep.json
genkit bench video world-onestep --teacher runs/world/pipeline --json docs/figures/world-bench.json

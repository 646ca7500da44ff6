#!/usr/bin/env bash
# Trains every one-step student of the README's digits table, two seeds each, and evaluates them
# against their teacher and against a second teacher that differs in its training seed only.
#
#     bash scripts/digits_table.sh         about half an hour on two cores; figures in runs/table
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
mkdir -p runs/table

for seed in 0 1; do
  for method in reflow consistency dmd2; do
    run=runs/table/$method-$seed
    SECONDS=0
    genkit train-distill "$method" --teacher digits-teacher --out "$run" --seed "$seed" \
      --resume --evaluate-n 0
    echo "$method seed $seed: $SECONDS s of training" | tee -a runs/table/seconds.txt
    genkit evaluate "$run/pipeline" --against digits-teacher --bootstraps 50 --json "$run.json"
  done
done
# The control: the same network and pairs, regressed without a reflow stage.
genkit train-distill regression --teacher digits-teacher --out runs/table/control-0 \
  --resume --evaluate-n 0
genkit evaluate runs/table/control-0/pipeline --against digits-teacher --json runs/table/control-0.json
genkit train --data digits --out runs/table/teacher-1 --seed 1 --resume --evaluate-n 0
genkit evaluate runs/table/teacher-1/pipeline --steps 4,50 --json runs/table/teacher-1.json

#!/usr/bin/env bash
# The README's emoji table: the shipped student against its teacher at the guidance that follows
# best and at the one nearest to the data, the regression that stands beside it, and the times.
#
#     bash scripts/emoji_table.sh          about an hour on two cores; figures in docs/figures
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
figures=docs/figures

# Both scales were chosen on validation prompts: docs/figures/emoji-guidance.json, made by
# scripts/ship_emoji.sh.
genkit evaluate emoji-onestep --steps 1,2,4,50 --guidance "${FOLLOWS:-2},${NEAREST:-1.5}" \
  --mixed-precision bf16 --json "$figures/emoji-onestep.json"
# The control: the student's pairs, network and warm-up, and nothing else.
genkit train-distill regression --teacher emoji-teacher --out runs/emoji-regression \
  --guidance 1.5 --pairs 12000 --pair-steps 8 --pair-precision bf16 --batch-size 64 \
  --mixed-precision bf16 --muon 'blocks?\.' --max-steps 1200 --measure-every 0 --evaluate-n 0 --resume
genkit evaluate runs/emoji-regression/pipeline --steps 1 --mixed-precision bf16 \
  --json "$figures/emoji-regression.json"
# The teacher's fewest steps, by the best solver, that are as good as the student.
genkit evaluate emoji-onestep --steps 4,6,8,12 --orders 1,3 --guidance "${FOLLOWS:-2}" -n 1000 \
  --seeds 0 --bootstraps 10 --mixed-precision bf16 --json "$figures/emoji-solvers.json"
genkit bench latency --student emoji-onestep --steps 4,8,50 --out "$figures/emoji-latency.json"

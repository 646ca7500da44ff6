#!/usr/bin/env bash
# Makes the shipped emoji pipelines again: the teacher, its guidance chosen on validation prompts,
# and its one-step student; config, log and figures beside each.
#
#     bash scripts/ship_emoji.sh           about two hours and a half on two cores, every step resumes
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

shipped=pipelines/genkit_pipelines/pretrained

# In bfloat16, and then measured as it is shipped; the table is made by scripts/emoji_table.sh.
ship() {
  python scripts/ship.py "runs/$1" "$@"
  genkit evaluate "$1" --steps 8 -n 500 --seeds 0 --json "$shipped/$1/metrics.json"
}

genkit train --data emoji-scenes --out runs/emoji-teacher --resume --evaluate-n 0
# At which guidance the teacher follows best, and at which it is nearest to the data.
genkit evaluate runs/emoji-teacher/pipeline --split validation --guidance 1,1.5,2,3,4 \
  --steps 50 -n 500 --seeds 0 --mixed-precision bf16 --json docs/figures/emoji-guidance.json
ship emoji-teacher --guidance "${GUIDANCE:-2}"
genkit train-distill dmd2 --teacher emoji-teacher --out runs/emoji-onestep --resume --evaluate-n 0 \
  --guidance 1.5 --pairs 12000 --pair-steps 8 --max-steps 2500 --warmup-share 0.48 --shift 3 \
  --normaliser sample --adversarial 0.03 --critic teacher --checkpoint-every 100
ship emoji-onestep

#!/usr/bin/env bash
# A small Stable Diffusion, trained by diffusers alone on emoji scenes, distilled into one step by
# dmd2 and consistency, whole and as adapters, and measured beside it.
#
#     bash scripts/tiny_sd_table.sh        three hours and a half on one core; figures in docs/figures
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
teacher=runs/tiny-sd guidance="${GUIDANCE:-3}"

test -f "$teacher/model_index.json" || python scripts/train_tiny_sd.py "$teacher"
genkit evaluate "$teacher" --data emoji-scenes --split validation --guidance 1,2,3,5 --steps 50 \
  -n 500 --seeds 0 --mixed-precision bf16 --json docs/figures/tiny-sd-guidance.json

distil() {
  name=$1 method=$2
  shift 2
  genkit train-distill "$method" --teacher "$teacher" --data emoji-scenes --out "runs/tiny-sd-$name" \
    --guidance "$guidance" --batch-size 64 --mixed-precision bf16 --muon '' --measure-every 0 \
    --sample-every 0 --evaluate-n 0 --resume "$@"
  genkit evaluate "runs/tiny-sd-$name/pipeline" --steps 1,2,4,50 --guidance "$guidance" -n 1000 \
    --seeds 0 --mixed-precision bf16 --json "docs/figures/tiny-sd-$name.json"
}

pairs=(--pairs 6000 --pair-steps 10 --pair-precision bf16)
match=(--shift 1 --fake-turns 2 --adversarial 0 --fake-lr 5e-4)
distil dmd2 dmd2 "${pairs[@]}" "${match[@]}" --max-steps 1200 --warmup-share 0.75 --lr 3e-4
distil dmd2-lora dmd2 "${pairs[@]}" "${match[@]}" --max-steps 1200 --warmup-share 0.75 --lr 1e-3 \
  --lora 16
distil consistency consistency --max-steps 800 --lr 5e-4
distil consistency-lora consistency --max-steps 800 --lr 1e-3 --lora 16

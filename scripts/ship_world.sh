#!/usr/bin/env bash
# Makes the shipped worlds again: the teacher, its students, and the table of docs/video.md.
#
#     bash scripts/ship_world.sh           about four hours on one core, every step resumes
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
figures=docs/figures

ship() {
  python scripts/ship.py "runs/$1" "$1"
}

genkit train --data world --out runs/world-teacher --resume --evaluate-n 0
ship world-teacher
for seed in 0 1; do
  for method in consistency dmd2; do
    genkit train-distill "$method" --teacher world-teacher --out "runs/world-$method-$seed" \
      --seed "$seed" --resume --evaluate-n 0
  done
done
genkit train-distill regression --teacher world-teacher --out runs/world-regression \
  --resume --evaluate-n 0
for student in consistency-0 consistency-1 dmd2-0 dmd2-1; do
  genkit evaluate "runs/world-$student/pipeline" -n 64 --steps 1,2,4,50 \
    --beside runs/world-regression/pipeline --json "$figures/world-$student.json"
done
rm -rf runs/world-onestep && cp -r "runs/world-${STUDENT:-dmd2-0}" runs/world-onestep
ship world-onestep
genkit bench video world-onestep --json "$figures/world-bench.json"

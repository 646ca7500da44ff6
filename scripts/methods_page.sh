#!/usr/bin/env bash
# Makes docs/results-methods.md again: every method on the three analytic benches, on the digits'
# teacher, and on emoji scenes the eight with the best mean place at one step over those four.
#
#     bash scripts/methods_page.sh         about three hours on two cores, every step resumes
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
figures=docs/figures

genkit bench methods --json "$figures/methods.json"
genkit compare --teacher digits-teacher --methods all --budget 1M-nfe --jobs 2 \
  --out runs/digits-methods
genkit compare --teacher emoji-teacher --methods "${CHOSEN:-meanflow,scm,consistency,drifting,dmd2,lcm,f_distill,flow_map}" \
  --budget 80k-nfe --jobs 2 -n 1000 --set evaluate_precision=bf16 \
  --out runs/emoji-methods
for set in digits emoji; do
  cp "runs/$set-methods/comparison.json" "$figures/$set-methods.json"
done
python scripts/write_results.py "$figures"/{methods,digits-methods,emoji-methods}.json
python scripts/write_methods_table.py

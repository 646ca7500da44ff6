#!/usr/bin/env bash
# Makes the shipped voice: data of Debian's flite (synthesised), a vocoder, a teacher, its one-step
# student, and what stands beside it; config, log and figures beside each.
#
#     bash scripts/ship_speech.sh          about four hours on two cores, every step resumes
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

python scripts/make_speech.py --hours 6
python scripts/train_vocoder.py --out runs/vocoder
genkit train --data speech-flite --decoder runs/vocoder/vocoder --out runs/speech --resume \
  --evaluate-n 0
for method in consistency reflow regression; do
  genkit train-distill "$method" --teacher runs/speech/pipeline --out "runs/speech-$method" \
    --resume --evaluate-n 0
done
python scripts/ship.py runs/speech-consistency speech-onestep
genkit evaluate speech-onestep --against runs/speech/pipeline -n 100 --student-steps 1,2,4 \
  --beside runs/speech-reflow/pipeline,runs/speech-regression/pipeline \
  --json docs/figures/speech-onestep.json
genkit bench speech speech-onestep --teacher runs/speech/pipeline --json docs/figures/speech-bench.json

#!/usr/bin/env bash
# Makes the shipped speech pipelines again: sentences by Debian's flite, a vocoder, the teacher, its
# students, and the table of docs/speech.md. Needs flite (apt-get install flite).
#
#     bash scripts/ship_speech.sh          about five hours on one core, every step resumes
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
figures=docs/figures

ship() {
  python scripts/ship.py "runs/$1" "$1"
}

command -v flite >/dev/null || { echo "flite is missing: apt-get install flite" >&2; exit 2; }
python scripts/make_speech.py --hours 6
# One core each: the teacher is not trained on what is heard.
OMP_NUM_THREADS=1 python scripts/train_vocoder.py --out runs/vocoder &
OMP_NUM_THREADS=1 genkit train --data speech-flite --out runs/speech-teacher --resume --evaluate-n 0
wait $!
python scripts/ship.py runs/speech-teacher speech-teacher --vocoder runs/vocoder/vocoder
genkit evaluate speech-teacher --steps 1,4,20,50 -n 100 --seeds 0 --json \
  pipelines/genkit_pipelines/pretrained/speech-teacher/metrics.json
for seed in 0 1; do
  for method in consistency reflow; do
    genkit train-distill "$method" --teacher speech-teacher --out "runs/speech-$method-$seed" \
      --seed "$seed" --resume --evaluate-n 0
  done
done
# The control: the same network and pairs, regressed without a reflow stage.
genkit train-distill regression --teacher speech-teacher --out runs/speech-regression \
  --resume --evaluate-n 0
for student in consistency-0 consistency-1 reflow-0 reflow-1; do
  genkit evaluate "runs/speech-$student/pipeline" -n 100 --steps 1,2,4,50 --student-steps 1,2,4 \
    --beside runs/speech-regression/pipeline --json "$figures/speech-$student.json"
done
rm -rf runs/speech-onestep && cp -r "runs/speech-${STUDENT:-consistency-0}" runs/speech-onestep
ship speech-onestep
genkit bench speech speech-onestep --json "$figures/speech-bench.json"

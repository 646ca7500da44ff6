#!/usr/bin/env bash
# Makes the shipped speech pipelines again: sentences by Debian's flite, a vocoder, the teacher, its
# students, and the table of docs/speech.md. Needs flite (apt-get install flite).
#
#     bash scripts/ship_speech.sh          about five hours on one core, every step resumes
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shipping.sh"

command -v flite >/dev/null || { echo "flite is missing: apt-get install flite" >&2; exit 2; }
python scripts/make_speech.py --hours 6
# One core each: the teacher is not trained on what is heard.
OMP_NUM_THREADS=1 python scripts/train_vocoder.py --out runs/vocoder &
OMP_NUM_THREADS=1 genkit train --data speech-flite --out runs/speech-teacher --resume --evaluate-n 0
wait $!
ship speech-teacher --vocoder runs/vocoder/vocoder
genkit evaluate speech-teacher --steps 1,4,20,50 -n 100 --seeds 0 --json \
  pipelines/genkit_pipelines/pretrained/speech-teacher/metrics.json
students speech "consistency reflow"
tables speech "consistency reflow" -n 100 --steps 1,2,4,50 --student-steps 1,2,4
deliver speech-onestep "speech-${STUDENT:-consistency-0}"
genkit bench speech speech-onestep --json "$figures/speech-bench.json"

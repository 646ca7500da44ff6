#!/usr/bin/env bash
# Makes the shipped speech pipelines again: sentences by Debian's flite, a vocoder, the teacher, its
# students, and the table of docs/speech.md. Needs flite (apt-get install flite).
#
#     bash scripts/ship_speech.sh          about eight hours on one core, every step resumes
#
# It has not run whole. The shipped teacher is of three runs on end (--start), of 6,000 steps each;
# words by themselves were a third of the lists in the last.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shipping.sh"

command -v flite >/dev/null || { echo "flite is missing: apt-get install flite" >&2; exit 2; }
python scripts/make_speech.py --hours 6
# One core each: the teacher is not trained on what is heard.
export OMP_NUM_THREADS=1
python scripts/train_vocoder.py --out runs/vocoder &
genkit train --data speech-flite --out runs/speech-first --resume --evaluate-n 0
genkit train --data speech-flite --start runs/speech-first/pipeline --lr 3e-4 --time-mean -0.6 \
  --max-steps 12000 --out runs/speech-teacher --resume --evaluate-n 0
wait $!
unset OMP_NUM_THREADS
ship speech-teacher --vocoder runs/vocoder/vocoder --guidance 1.3
genkit evaluate speech-teacher --steps 1,4,20,50 -n 100 --seeds 0 --json \
  pipelines/genkit_pipelines/pretrained/speech-teacher/metrics.json
students speech "consistency reflow"
table speech "consistency reflow" -n 100 --seeds 0 --steps 1,2,4,50 --student-steps 1,2,4
deliver speech-onestep "speech-${STUDENT:-consistency-1}"
python scripts/draw_samples.py speech-onestep -n 4
genkit bench speech speech-onestep --json "$figures/speech-bench.json"

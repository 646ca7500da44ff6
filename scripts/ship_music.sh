#!/usr/bin/env bash
# Makes the shipped music pipelines again: songs by rule, the codec, the teacher, its students, and
# the table of docs/music.md. Needs apt-get install fluidsynth timgm6mb-soundfont.
#
#     bash scripts/ship_music.sh           about six hours on one core, every step resumes
#
# It has not run whole. The shipped teacher is of two runs on end (--start), of 857 and 3,800 steps,
# and its codec's windows of 186 and 372 ms came in after 4,000 of 7,000 steps.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shipping.sh"

command -v fluidsynth >/dev/null ||
  { echo "fluidsynth is missing: apt-get install fluidsynth timgm6mb-soundfont" >&2; exit 2; }
python scripts/make_music.py --hours 4
python scripts/train_music_codec.py --out runs/music-codec
genkit train flow_matching --data music --decoder runs/music-codec/codec \
  --out runs/music-teacher --resume --evaluate-n 0
ship music-teacher
students music "reflow consistency" --guidance 2
table music "reflow consistency" -n 400 --seeds 0 --guidance 2 --steps 1,2,4,50 --student-steps 1,2,4
deliver music-fewstep "music-${STUDENT:-consistency-0}"
genkit bench music music-fewstep --rounds 2 --json "$figures/music-bench.json"

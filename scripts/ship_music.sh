#!/usr/bin/env bash
# Makes the shipped music pipelines again: songs by rule, the codec, the teacher, its students, and
# the table of docs/music.md. Needs apt-get install fluidsynth timgm6mb-soundfont.
#
#     bash scripts/ship_music.sh           about six hours on one core, every step resumes
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
figures=docs/figures

ship() {
  python scripts/ship.py "runs/$1" "$1"
}

command -v fluidsynth >/dev/null ||
  { echo "fluidsynth is missing: apt-get install fluidsynth timgm6mb-soundfont" >&2; exit 2; }
python scripts/make_music.py --hours 4
python scripts/train_music_codec.py --out runs/music-codec
genkit train flow_matching --data music --decoder runs/music-codec/codec \
  --out runs/music-teacher --resume --evaluate-n 0
ship music-teacher
for seed in 0 1; do
  for method in reflow consistency; do
    genkit train-distill "$method" --teacher music-teacher --guidance 2 \
      --out "runs/music-$method-$seed" --seed "$seed" --resume --evaluate-n 0
  done
done
genkit train-distill regression --teacher music-teacher --guidance 2 \
  --out runs/music-regression --resume --evaluate-n 0
for student in reflow-0 reflow-1 consistency-0 consistency-1; do
  genkit evaluate "runs/music-$student/pipeline" -n 400 --steps 1,2,4,50 --student-steps 1,2,4 \
    --beside runs/music-regression/pipeline --json "$figures/music-$student.json"
done
rm -rf runs/music-fewstep && cp -r "runs/music-${STUDENT:-consistency-0}" runs/music-fewstep
ship music-fewstep
genkit bench music music-fewstep --data music --json "$figures/music-bench.json"

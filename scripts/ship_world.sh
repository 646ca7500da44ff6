#!/usr/bin/env bash
# Makes the shipped worlds again: the teacher, its students, and the table of docs/video.md.
#
#     bash scripts/ship_world.sh           about five hours on one core, every step resumes
#
# It has not run whole. The shipped teacher is of three runs on end (--start), all forced: 1,050 steps
# without first frames alone, 1,500 with half of them so, both at a context noise of .05, and 2,000
# with .6 of them so at .2, which is what a new network has.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shipping.sh"

genkit train --data world --out runs/world-teacher --resume --evaluate-n 0
ship world-teacher
students world "consistency dmd2"
table world "consistency dmd2" -n 64 --steps 1,2,4,50
deliver world-onestep "world-${STUDENT:-dmd2-0}"
genkit bench video world-onestep --json "$figures/world-bench.json"

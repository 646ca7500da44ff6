#!/usr/bin/env bash
# Makes the shipped digits pipelines again, each with the run's config, log and metrics beside it.
#
#     bash scripts/ship_digits.sh          about ten minutes on two cores
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
shipped=pipelines/genkit_pipelines/pretrained

ship() {
  rm -rf "${shipped:?}/$1"
  mkdir -p "$shipped"
  cp -r "runs/$1/pipeline" "$shipped/$1"
  cp "runs/$1/config.json" "runs/$1/log.jsonl" "runs/$1/metrics.json" "$shipped/$1/"
}

genkit train --data digits --out runs/digits-teacher --resume --evaluate-n 2000
ship digits-teacher
genkit train-distill dmd2 --teacher digits-teacher --out runs/digits-onestep --resume --evaluate-n 2000
ship digits-onestep

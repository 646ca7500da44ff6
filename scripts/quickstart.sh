#!/usr/bin/env bash
# Makes .venv if need be, then distils the embedded default teacher and reports on the student.
#
#     bash scripts/quickstart.sh [options of genkit train-distill]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
export HF_HUB_OFFLINE=1
exec .venv/bin/genkit train-distill "$@"

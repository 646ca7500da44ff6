#!/usr/bin/env bash
# Makes .venv if need be, then checks lint, format and types and runs the tests.
#
#     bash scripts/test.sh [options of pytest]      for instance tests/test_paths.py, or -m slow
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh dev
# One thread per worker, and no spinning while it waits: two workers share two cores.
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
bin=.venv/bin
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/pyright" --pythonpath "$bin/python"
exec "$bin/python" -m pytest -q -n 2 --dist loadfile "$@"

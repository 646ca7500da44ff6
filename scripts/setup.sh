#!/usr/bin/env bash
# Makes .venv with genkit in it, or returns at once when it is already as pyproject.toml and
# constraints.txt ask. Called by quickstart.sh (run-time packages) and test.sh (those and `dev`).
# Packages come from whatever index pip is set up for; nothing is downloaded after this.
#
#     bash scripts/setup.sh [dev]      PYTHON=python3.12 chooses another interpreter
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
extra=${1:-}
python=${PYTHON:-python3}
stamp=$root/.venv/genkit-installed
wanted="$(cat "$root/pyproject.toml" "$root/constraints.txt" | cksum) $root"

# An environment with `dev` serves both commands, so quickstart accepts either stamp.
if [ -f "$stamp" ]; then
  found=$(cat "$stamp")
  if [ "$found" = "$wanted dev" ] || [ "$found" = "$wanted $extra" ]; then exit 0; fi
fi

if ! "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
then
  echo "genkit needs Python 3.11 or later with its venv module, and '$python' is not that:" \
    "install it (on Debian: python3 and python3-venv) or name one with PYTHON=python3.12." >&2
  exit 1
fi

echo "Installing genkit into $root/.venv: once, some minutes, about 2 GB." >&2
rm -f "$stamp"
"$python" -m venv "$root/.venv"
install() { "$root/.venv/bin/python" -m pip install -qq -c "$root/constraints.txt" "$@"; }
export PIP_DISABLE_PIP_VERSION_CHECK=1
# torch first: it is the largest, and everything else must settle on this very build.
install torch==2.13.0
install -e "$root${extra:+[$extra]}"
echo "$wanted $extra" > "$stamp"

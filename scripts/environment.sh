# Sourced by the scripts that run genkit: the repository's root, .venv made if need be, offline.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
export HF_HUB_OFFLINE=1
PATH="$PWD/.venv/bin:$PATH"

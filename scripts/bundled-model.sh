#!/usr/bin/env bash
# Makes the bundled model: the data, the image tokenizer, the tokens, the transformer, the card. The text tokenizer is the
# one that ships; `cogview train text-tokenizer --out text.model` makes one like it, from captions as they are now.
#
#   scripts/bundled-model.sh WORK              2 hours 20 minutes on 2 CPU cores with bfloat16; needs `make check` run once
#   RECIPE=bundled-gpu scripts/bundled-model.sh WORK      the larger one, on a GPU; not measured yet
#   TRY=1 scripts/bundled-model.sh WORK        the whole way in minutes, with few pictures and steps, for a model of no use
#
# The model that ships was made so, from end to end in one call.
#
# WORK is a folder with 3 GB to spare; a second call goes on where the first one stopped. The icons come by npm, or from
# the folder that COGVIEW_PACKAGES names. COGVIEW is the command to run, for instance "python3 -m cogview".
set -euo pipefail
work=${1:?usage: scripts/bundled-model.sh WORK}
mkdir -p "$work"
work=$(cd "$work" && pwd)
cd "$(dirname "$0")/.."
recipe=${RECIPE:-bundled}
cogview=${COGVIEW:-.venv/bin/cogview}
python=${PYTHON:-.venv/bin/python}
trap : TERM # a request to stop is for the command that runs: it saves and fails, which ends this script too
of_data=() of_training=()
if [ -n "${TRY:-}" ]; then
  of_data=(--data.num-train 400 --data.num-held-out-composition 40 --data.num-held-out-object 40)
  of_training=(--training.num-steps 20 --training.checkpoint-every-steps 10)
fi
resume() { if [ -e "$1/config.json" ]; then echo --resume; fi; }

[ -d "$work/icons" ] || $cogview data build "$recipe-image-tokenizer" --out "$work/icons" ${of_data[@]+"${of_data[@]}"} \
  ${COGVIEW_PACKAGES:+--data.packages-folder "$COGVIEW_PACKAGES"}
[ -d "$work/scenes" ] || $cogview data build "$recipe" --out "$work/scenes" ${of_data[@]+"${of_data[@]}"} \
  ${COGVIEW_PACKAGES:+--data.packages-folder "$COGVIEW_PACKAGES"}
$cogview train image-tokenizer "$recipe" --data "$work/icons" --out "$work/image-tokenizer" \
  ${of_training[@]+"${of_training[@]}"} $(resume "$work/image-tokenizer")
for split in train held-out-composition; do
  [ -d "$work/tokens-$split" ] || $cogview tokenize "$work/scenes" --split "$split" --num-workers 2 \
    --image-tokenizer "$work/image-tokenizer" --out "$work/tokens-$split"
done
transform() { # RECIPE OUT FLAGS...
  local recipe=$1 out=$2
  shift 2
  $cogview train text-to-image "$recipe" --data "$work/tokens-train" --held-out "$work/tokens-held-out-composition" \
    --out "$out" "$@" ${of_training[@]+"${of_training[@]}"} $(resume "$out")
}
transform "$recipe-start" "$work/transformer-start"
transform "$recipe" "$work/transformer" --start-from "$work/transformer-start"
model=$work/transformer/model
$python bench/model_card.py --model "$model" --pictures "$work/scenes" \
  --image-tokenizer-run "$work/image-tokenizer" --transformer-run "$work/transformer-start" "$work/transformer" \
  --recipe "$recipe"
echo "To ship it: cp -r $model/. src/cogview/bundled/"

#!/usr/bin/env bash
# Makes the model of the larger world from the bundled one, whose tokenizers it keeps: data, tokens, transformer, decoder.
#
#   scripts/larger-world.sh WORK           hours on 2 CPU cores with bfloat16; needs `make check` run once
#   TRY=1 scripts/larger-world.sh WORK     the whole way in minutes, with few pictures and steps, for a model of no use
#
# WORK is a folder with 35 GB to spare; a second call goes on where the first one stopped. The icons come by npm, or from
# the folder that COGVIEW_PACKAGES names. COGVIEW is the command to run, for instance "python3 -m cogview".
set -euo pipefail
work=${1:?usage: scripts/larger-world.sh WORK}
mkdir -p "$work"
work=$(cd "$work" && pwd)
cd "$(dirname "$0")/.."
cogview=${COGVIEW:-.venv/bin/cogview}
trap : TERM # a request to stop is for the command that runs: it saves and fails, which ends this script too
of_data=() of_training=()
if [ -n "${TRY:-}" ]; then
  of_data=(--data.num-train 400 --data.num-held-out-composition 40 --data.num-held-out-colour 40 --data.num-held-out-object 40)
  of_training=(--training.num-steps 4 --training.checkpoint-every-steps 2)
fi
resume() { if [ -e "$1/config.json" ]; then echo --resume; fi; }

for name in world world-decoder bundled-decoder-others; do
  more=(${of_data[@]+"${of_data[@]}"})
  [ "$name" != bundled-decoder-others ] || more=(${TRY:+--data.num-train 40})
  [ -d "$work/$name" ] || $cogview data build "$name" --out "$work/$name" ${more[@]+"${more[@]}"} \
    ${COGVIEW_PACKAGES:+--data.packages-folder "$COGVIEW_PACKAGES"}
done
for split in train held-out-composition; do
  [ -d "$work/tokens-$split" ] || $cogview tokenize "$work/world" --split "$split" --num-workers 2 \
    --out "$work/tokens-$split"
done
transform() { # RECIPE OUT FLAGS...
  local recipe=$1 out=$2
  shift 2
  $cogview train text-to-image "$recipe" --data "$work/tokens-train" --held-out "$work/tokens-held-out-composition" \
    --out "$out" "$@" ${of_training[@]+"${of_training[@]}"} $(resume "$out")
}
transform world-start "$work/transformer-start" --start-from bundled
transform world "$work/transformer" --start-from "$work/transformer-start"
# What the model draws is seen as often as all else: its folder is named twice.
$cogview train decoder world --start-from bundled --out "$work/decoder" \
  --data "$work/world-decoder" "$work/world-decoder" "$work/bundled-decoder-others" \
  ${of_training[@]+"${of_training[@]}"} $(resume "$work/decoder")
echo "To ship it: copy $work/transformer/model over src/cogview/bundled, then $work/decoder/model/decoders into its image_tokenizer"

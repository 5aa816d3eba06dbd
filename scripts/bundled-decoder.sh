#!/usr/bin/env bash
# Makes the decoder that ships: its pictures and its training.
#
#   scripts/bundled-decoder.sh WORK          needs `make check` run once; see the model card for time and hardware
#   TRY=1 scripts/bundled-decoder.sh WORK    the whole way in a minute, with few pictures and steps, for a decoder of no use
#
# WORK is a folder with 21 GB to spare; a second call goes on where the first one stopped. COGVIEW is the command to run.
set -euo pipefail
work=${1:?usage: scripts/bundled-decoder.sh WORK}
mkdir -p "$work"
work=$(cd "$work" && pwd)
cd "$(dirname "$0")/.."
cogview=${COGVIEW:-.venv/bin/cogview}
trap : TERM # a request to stop is for the command that runs: it saves and fails, which ends this script too
of_data=() of_training=()
if [ -n "${TRY:-}" ]; then
  of_data=(--data.num-train 40 --data.num-held-out-composition 8 --data.num-held-out-object 8)
  of_training=(--training.num-steps 4 --training.checkpoint-every-steps 2)
fi
for name in bundled-decoder bundled-decoder-others; do
  [ -d "$work/$name" ] || $cogview data build "$name" --out "$work/$name" ${of_data[@]+"${of_data[@]}"} \
    ${COGVIEW_PACKAGES:+--data.packages-folder "$COGVIEW_PACKAGES"}
done
# What the model draws is seen as often as all else: its folder is named twice.
$cogview train decoder bundled --data "$work/bundled-decoder" "$work/bundled-decoder" "$work/bundled-decoder-others" --out "$work/decoder" \
  ${of_training[@]+"${of_training[@]}"} $([ ! -e "$work/decoder/config.json" ] || echo --resume)
echo "To ship it: cp -r $work/decoder/model/decoders src/cogview/bundled/image_tokenizer/"

#!/usr/bin/env bash
# Makes the bundled model from nothing: the data, the image tokenizer, the tokens, the transformer, the card.
# About two and a half hours on 2 CPU cores with bfloat16. Needs npm for the icons, and `make check` run once.
#
#   scripts/bundled-model.sh WORK
#
# WORK is a folder with 3 GB to spare; a second call goes on where the first one stopped.
set -euo pipefail
work=${1:?usage: scripts/bundled-model.sh WORK}
cd "$(dirname "$0")/.."
cogview=.venv/bin/cogview
export THP_MEM_ALLOC_ENABLE=1 # large pages: training on CPU is 1.5 times faster
resume() { [ -d "$1" ] && echo --resume || true; }

mkdir -p "$work"
[ -d "$work/icons" ] || $cogview data build bundled-image-tokenizer --out "$work/icons"
[ -d "$work/scenes" ] || $cogview data build bundled --out "$work/scenes"
$cogview train image-tokenizer bundled --data "$work/icons" --out "$work/image-tokenizer" $(resume "$work/image-tokenizer")
for split in train held-out-composition; do
  [ -d "$work/tokens-$split" ] || $cogview tokenize "$work/scenes" --split "$split" \
    --image-tokenizer "$work/image-tokenizer" --out "$work/tokens-$split"
done
$cogview train text-to-image bundled --data "$work/tokens-train" --held-out "$work/tokens-held-out-composition" \
  --out "$work/transformer" $(resume "$work/transformer")
.venv/bin/python bench/model_card.py --model "$work/transformer/model" --pictures "$work/scenes" \
  --image-tokenizer-run "$work/image-tokenizer" --transformer-run "$work/transformer"
echo "To ship it: cp -r $work/transformer/model/. src/cogview/bundled/"

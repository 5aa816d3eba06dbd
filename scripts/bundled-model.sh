#!/usr/bin/env bash
# Makes the bundled model: the data, the image tokenizer, the tokens, the transformer, the card. The text tokenizer is the
# one that ships; `cogview train text-tokenizer --out text.model` makes that.
#
#   scripts/bundled-model.sh WORK              about five hours on 2 CPU cores; needs `make check` run once
#   RECIPE=bundled-gpu scripts/bundled-model.sh WORK      the larger one, on a GPU; not measured yet
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
resume() { if [ -e "$1/config.json" ]; then echo --resume; fi; }

[ -d "$work/icons" ] || $cogview data build "$recipe-image-tokenizer" --out "$work/icons" \
  ${COGVIEW_PACKAGES:+--data.packages-folder "$COGVIEW_PACKAGES"}
[ -d "$work/scenes" ] || $cogview data build "$recipe" --out "$work/scenes" \
  ${COGVIEW_PACKAGES:+--data.packages-folder "$COGVIEW_PACKAGES"}
$cogview train image-tokenizer "$recipe" --data "$work/icons" --out "$work/image-tokenizer" \
  $(resume "$work/image-tokenizer")
for split in train held-out-composition; do
  [ -d "$work/tokens-$split" ] || $cogview tokenize "$work/scenes" --split "$split" --num-workers 2 \
    --image-tokenizer "$work/image-tokenizer" --out "$work/tokens-$split"
done
transform() { # OUT FLAGS...
  local out=$1
  shift
  $cogview train text-to-image "$recipe" --data "$work/tokens-train" --held-out "$work/tokens-held-out-composition" \
    --out "$out" "$@" $(resume "$out")
}
runs=("$work/transformer")
transform "$work/transformer"
if [ "$recipe" = bundled ]; then # two more runs, in which the text has to be looked at: see the decisions log
  runs+=("$work/transformer-2" "$work/transformer-3")
  transform "$work/transformer-2" --start-from "$work/transformer" --mixed-codes 0.5 --token-loss.text-weight 0.1 \
    --training.learning-rate 1e-3 --training.muon-learning-rate 0.01
  transform "$work/transformer-3" --start-from "$work/transformer-2" --mixed-codes 0.15 --token-loss.text-weight 0.1 \
    --training.num-steps 5000 --training.learning-rate 5e-4 --training.muon-learning-rate 0.005
fi
model=${runs[-1]}/model
$python bench/model_card.py --model "$model" --pictures "$work/scenes" \
  --image-tokenizer-run "$work/image-tokenizer" --transformer-run "${runs[@]}" --recipe "$recipe"
echo "To ship it: cp -r $model/. src/cogview/bundled/"

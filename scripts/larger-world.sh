#!/usr/bin/env bash
# Makes the model of the larger world from the bundled one, whose tokenizers it keeps: data, tokens, transformer, decoder,
# and its adapters, which start as those of the bundled model.
#
#   scripts/larger-world.sh WORK           hours on 2 CPU cores with bfloat16; needs `make check` run once
#   TRY=1 scripts/larger-world.sh WORK     the whole way in minutes, with few pictures and steps, for a model of no use
#
# WORK is a folder with 40 GB to spare; a second call goes on where the first one stopped. The icons come by npm, or from
# the folder that COGVIEW_PACKAGES names. COGVIEW is the command to run, for instance "python3 -m cogview".
set -euo pipefail
work=${1:?usage: scripts/larger-world.sh WORK}
mkdir -p "$work"
work=$(cd "$work" && pwd)
cd "$(dirname "$0")/.."
cogview=${COGVIEW:-.venv/bin/cogview}
trap : TERM # a request to stop is for the command that runs: it saves and fails, which ends this script too
of_data=() of_style=() of_training=()
if [ -n "${TRY:-}" ]; then
  of_data=(--data.num-train 400 --data.num-held-out-composition 40 --data.num-held-out-colour 40 --data.num-held-out-object 40)
  of_style=(--data.num-train 40 --data.num-other-icons 10 --data.num-ordinary 40 --data.num-other-ordinary 30
    --data.num-held-out 20)
  of_training=(--training.num-steps 4 --training.checkpoint-every-steps 2 --training.sample-every-steps 0)
fi
resume() { if [ -e "$1/config.json" ]; then echo --resume; fi; }

build() { # RECIPE FLAGS...
  local recipe=$1
  shift
  [ -d "$work/$recipe" ] || $cogview data build "$recipe" --out "$work/$recipe" "$@" \
    ${COGVIEW_PACKAGES:+--data.packages-folder "$COGVIEW_PACKAGES"}
}
tokens() { # PICTURES SPLIT OUT FLAGS...
  local pictures=$1 split=$2 out=$3
  shift 3
  [ -d "$work/$out" ] || $cogview tokenize "$work/$pictures" --split "$split" --num-workers 2 --out "$work/$out" "$@"
}
for name in world world-decoder; do build $name ${of_data[@]+"${of_data[@]}"}; done
build bundled-decoder-others ${TRY:+--data.num-train 40}
for split in train held-out-composition; do tokens world $split tokens-$split; done
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
model=$work/model
if [ ! -d "$model" ]; then
  cp -r "$work/transformer/model" "$work/model.part"
  cp -r "$work/decoder/model/decoders" "$work/model.part/image_tokenizer/"
  mv "$work/model.part" "$model"
fi

# Adapters learn what is new in a fraction of the steps that they were first trained for.
adapter() { # TASK RECIPE OUT START NUM_STEPS FLAGS...
  local task=$1 recipe=$2 out=$work/$3 start=$4 num_steps=$5
  shift 5
  $cogview train "$task" "$recipe" --base "$model" --start-from "$start" --out "$out" "$@" \
    --training.num-steps "$num_steps" ${of_training[@]+"${of_training[@]}"} $(resume "$out")
}
bundled=src/cogview/bundled/adapters
num_told=100000 && [ -z "${TRY:-}" ] || num_told=40
build world-captions --data.num-train $num_told
tokens world-captions train told-train
tokens world-captions held-out-composition told-held-out
adapter captioning bundled caption $bundled/caption 1500 --licence apache-2.0 \
  --data "$work/told-train" --held-out "$work/told-held-out"

for pixels in 128 256 512; do tokens world-decoder train pictures-$pixels --size-pixels $pixels; done
adapter super-resolution bundled super-resolution $bundled/super-resolution 800 --licence apache-2.0 \
  --data "$work/pictures-256" --low "$work/pictures-128" --windows "$work/pictures-512"

style() { # NAME RECIPE LICENCE FLAGS...
  local name=$1 recipe=$2 licence=$3
  shift 3
  build "$recipe" ${of_style[@]+"${of_style[@]}"}
  tokens "$recipe" train "$name-tokens"
  $cogview train style bundled-start --base "$model" --data "$work/$name-tokens" --licence "$licence" \
    --out "$work/$name-start" "$@" ${of_training[@]+"${of_training[@]}"} $(resume "$work/$name-start")
  $cogview train style bundled --base "$model" --data "$work/$name-tokens" --licence "$licence" \
    --start-from "$work/$name-start" --out "$work/$name" ${of_training[@]+"${of_training[@]}"} $(resume "$work/$name")
}
style style-openmoji world-openmoji-style CC-BY-SA-4.0
style style-3d world-3d-style MIT
echo "To ship it: cp -r $model/. src/cogview/bundled/, and each $work/NAME/model/. to src/cogview/bundled/adapters/NAME/"

#!/usr/bin/env bash
# Adapters of the bundled model and the pending figures (bench/README.md) on one GPU, without a network and in three calls,
# each of which ends within some minutes:
#
#   scripts/gpu.sh prepare WORK                 data, tokens and the tests that need CUDA; some steps of each run, for their speed
#   scripts/gpu.sh train WORK CAPTION STYLE     the runs, so many steps of the first two, beside each other, with the stability lab
#   scripts/gpu.sh measure WORK                 the benchmarks, one after the other
#
# COGVIEW_PACKAGES is a folder with the archives of the icons, WHEELS one of what Python lacks there, SECONDS_LEFT the time that
# `train` may take. PYTHON is the interpreter. What is to be kept lies in WORK/kept afterwards.
set -uo pipefail
phase=${1:?usage: scripts/gpu.sh prepare|train|measure WORK}
mkdir -p "${2:?usage: scripts/gpu.sh $phase WORK}/kept"
work=$(cd "$2" && pwd)
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
packages=(--data.packages-folder "${COGVIEW_PACKAGES:?a folder with the archives of the icons}")
export PYTHONPATH=$work/site:$PWD/src PYTHONUNBUFFERED=1
cogview() { "$python" -m cogview "$@"; }
lap() { echo "--- $SECONDS s: $*"; }

data_and_tokens() { # NAME RECIPE FLAGS...
  local name=$1 recipe=$2
  shift 2
  cogview data build "$recipe" --out "$work/$name" "${packages[@]}" "$@" &&
    cogview tokenize "$work/$name" --split train --num-workers "${WORKERS:-6}" --out "$work/$name-tokens" &&
    lap "$name is tokenized"
}
caption() { # OUT NUM_STEPS
  cogview train captioning bundled --data "$work/captions-tokens" --licence apache-2.0 --out "$1" \
    --training.num-steps "$2" \
    --training.sample-every-steps 0 --training.checkpoint-every-steps 1000 --training.log-every-steps 100
}
style() { # OUT NUM_STEPS
  cogview train style bundled --data "$work/style-tokens" --licence CC-BY-SA-4.0 --out "$1" \
    --training.num-steps "$2" \
    --training.sample-every-steps 0 --training.checkpoint-every-steps 1000 --training.log-every-steps 100
}
people() { # OUT NUM_STEPS
  cogview train style people --data "$work/people-tokens" --licence CC-BY-4.0 --out "$1" \
    --training.num-steps "$2" --training.sample-every-steps 0 --training.log-every-steps 100
}
keep() { # NAME: of a run what ships and tells how it went
  tar -C "$work" -cf "$work/kept/$1.tar" "$1/model" "$1/metrics.jsonl" "$1/config.json"
}

case $phase in
prepare)
  [ -z "${WHEELS:-}" ] || "$python" -m pip install -q --no-index --no-deps --target "$work/site" "$WHEELS"/*.whl
  lap installed
  "$python" -m pytest -q -p no:cacheprovider -m gpu tests/decoding tests/generation tests/training tests/transformer >"$work/tests.log" 2>&1 &
  data_and_tokens captions bundled-captions --data.num-train "${NUM_CAPTIONED:-120000}" \
    --data.num-workers "${WORKERS:-10}" >"$work/captions.log" 2>&1 &
  data_and_tokens style openmoji-style >"$work/style.log" 2>&1 &
  data_and_tokens people people >"$work/people.log" 2>&1 &
  data_and_tokens scenes bundled --data.num-train 2000 >"$work/scenes.log" 2>&1 &
  wait
  for run in caption style people; do
    $run "$work/try-$run" "${TRY_STEPS:-200}" >"$work/try-$run.log" 2>&1 &
  done
  wait
  lap tried
  tail -n 1 "$work"/{captions,style,people,scenes}.log
  grep -H "steps in\|^step" "$work"/try-*.log || tail -n 5 "$work"/try-*.log
  tail -n 15 "$work/tests.log"
  ;;
train)
  limit="timeout -s TERM ${SECONDS_LEFT:-400}"
  export -f cogview caption style people
  export work python
  $limit bash -c "caption '$work/caption' ${3:?steps of the captioner}" >"$work/caption.log" 2>&1 &
  $limit bash -c "style '$work/style-run' ${4:?steps of the style}" >"$work/style-run.log" 2>&1 &
  $limit bash -c "people '$work/people-run' ${PEOPLE_STEPS:-4000}" >"$work/people-run.log" 2>&1 &
  $limit "$python" bench/stability.py --tokens "$work/scenes-tokens" --device "$device" --hidden-size "${LAB_WIDTH:-1024}" \
    --num-heads 16 --num-layers "${LAB_LAYERS:-64}" --learning-rates 0.1 --num-seeds 2 --out stability-$device \
    --picture "$work/kept/stability-$device.png" >"$work/stability.log" 2>&1 &
  wait
  lap trained
  tail -n 2 "$work"/{caption,style-run,people-run}.log
  tail -n 14 "$work/stability.log"
  for run in caption style-run people-run; do keep $run; done
  cp bench/results/stability-$device.json "$work/kept/"
  ;;
measure)
  four_b=(--hidden-size 2560 --num-heads 40)
  one() { # SECONDS SCRIPT FLAGS...
    local seconds=$1
    shift
    timeout "$seconds" "$python" "bench/$1.py" --device cuda "${@:2}" 2>&1 | tail -n 14
    lap "$1"
  }
  one 100 engine --rounds 2 --batches 1 16 --widths 1 4 16 0
  one 110 training "${four_b[@]}" --num-layers 8 --batch-size 8 --out cuda-4b-layers --systems "transformers GPT-2, bfloat16" \
    "ours, bfloat16, compiled" "ours, bfloat16 O2, compiled" "ours, float16 O2, compiled"
  one 60 sparse_attention --dtype bfloat16 --batch-size 4 --num-heads 40
  one 120 sparse_attention --dtype bfloat16 --batch-size 4 --num-heads 40 --tune
  one 150 decoding --dtype bfloat16 --rounds 2 --budget-seconds 0.2 --batches 1 8 64 "${four_b[@]}" --num-layers 12 --out cuda-4b-layers
  one 150 decoding --dtype bfloat16 --rounds 2 --budget-seconds 0.2
  cp bench/results/*cuda*.json "$work/kept/"
  ;;
*) echo "there is no phase $phase" && exit 2 ;;
esac

#!/usr/bin/env bash
# Run the tests with another Python and PyTorch: scripts/other-versions.sh python3.12 2.11.0 FOLDER [pytest's flags]
# FOLDER gets an environment of its own (several GB: PyTorch's CUDA libraries come along). Pins of constraints.txt
# hold for all but what must follow PyTorch.
set -euo pipefail
python=$1 torch=$2 folder=$3
shift 3
cd "$(dirname "$0")/.."
if [ ! -e "$folder/ready" ]; then
  "$python" -m venv "$folder"
  grep -vE '^(torch|triton|nvidia-|cuda-|setuptools|sympy)' constraints.txt > "$folder/constraints.txt"
  echo "torch==$torch" >> "$folder/constraints.txt"
  "$folder/bin/python" -m pip install --quiet --constraint "$folder/constraints.txt" setuptools
  "$folder/bin/python" -m pip install --quiet --constraint "$folder/constraints.txt" --no-build-isolation \
    --editable ".[$(sed -n 's/^EXTRAS := //p' Makefile)]"
  touch "$folder/ready"
fi
"$folder/bin/python" -c 'import sys, torch; print("Python", sys.version.split()[0], "torch", torch.__version__)'
"$folder/bin/python" -m pytest --numprocesses auto "$@"

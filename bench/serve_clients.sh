#!/bin/sh
# Do the clients of `cogview serve` that are too heavy for every checkout still work, and the newest of the others?
#
#     sh bench/serve_clients.sh [FOLDER]
#
# Installs litellm, webuiapi, and OpenAI's Python and JavaScript clients beside the packages of the environment that
# `python` is of, without changing it, and runs the tests with them. FOLDER is a temporary one by default; one that is
# named is kept. LITELLM, WEBUIAPI, OPENAI and COGVIEW_OPENAI_JS take other versions.
set -eu

cd "$(dirname "$0")/.."
base=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
if [ $# -gt 0 ]; then
    folder=$1
    mkdir -p "$folder"
else
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi

python -m venv "$folder/venv"
site=$("$folder/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$base" > "$site/base.pth"
"$folder/venv/bin/python" -m pip install --quiet --upgrade \
    "litellm${LITELLM:-}" "webuiapi${WEBUIAPI:-}" "openai${OPENAI:-}"
"$folder/venv/bin/python" -c '
from importlib.metadata import version
print(*(f"{name} {version(name)}" for name in ("litellm", "webuiapi", "openai")), sep=", ")'
COGVIEW_OPENAI_JS=${COGVIEW_OPENAI_JS:-6.49.0 latest} PYTHONPATH=src \
    "$folder/venv/bin/python" -m pytest -rs tests/serving/test_litellm.py tests/serving/test_a1111.py \
    tests/serving/test_openai_python.py tests/serving/test_openai_javascript.py tests/serving/test_clients_that_leave.py

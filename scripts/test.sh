#!/usr/bin/env bash
# Makes a virtual environment and runs the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 -m venv .venv
.venv/bin/pip install -q -e '.[testing]'
.venv/bin/python -m pytest "$@"

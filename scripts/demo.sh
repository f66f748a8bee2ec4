#!/usr/bin/env bash
# Sets up everything and opens napari with the sample classified and explained; --headless --out DIR writes
# files instead.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
"${VENV:-.venv}/bin/napari-xai-med" demo "$@"

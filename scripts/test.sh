#!/usr/bin/env bash
# Sets up everything and runs the tests, one process for each core; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
# Processes that each used all cores would wait for each other.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
"${VENV:-.venv}/bin/python" -m pytest -n logical --dist worksteal "$@"

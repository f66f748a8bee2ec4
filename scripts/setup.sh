#!/usr/bin/env bash
# Sets up what the other scripts need: system libraries for napari's window (Debian, Ubuntu) and a virtual
# environment with the package. Does nothing where all that is there already.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV="${VENV:-.venv}"
PYTHON="${PYTHON:-python3}"

# What Qt 6, OpenGL in software and a virtual display need.
packages=(xvfb libegl1 libgl1 libgl1-mesa-dri libopengl0 libdbus-1-3 libfontconfig1 libglib2.0-0
    libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0
    libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxcb-xfixes0 python3-venv)
if command -v apt-get >/dev/null; then
    missing=()
    for package in "${packages[@]}"; do
        # A package may have got a new name with a suffix (t64) that provides the old one. dpkg-query fails when
        # it doesn't know one of the two, so what it prints decides and not how it ends.
        known="$(dpkg-query -W -f='${Status}\n' "$package" "${package}t64" 2>/dev/null || true)"
        [[ "$known" == *"ok installed"* ]] || missing+=("$package")
    done
    if ((${#missing[@]})); then
        as_root=(); ((EUID == 0)) || as_root=(sudo)
        "${as_root[@]}" apt-get update -qq
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
    fi
elif [[ "$(uname)" == Linux ]]; then
    echo "No apt-get here: install Xvfb and the libraries of Qt 6 and OpenGL with your own package manager." >&2
fi

wanted="$(cat setup.cfg constraints.txt scripts/setup.sh | cksum) $(pwd)"
if [[ "$(cat "$VENV/.ready" 2>/dev/null)" != "$wanted" ]]; then
    "$PYTHON" -m venv "$VENV"
    "$VENV/bin/pip" install -q --disable-pip-version-check -c constraints.txt -e '.[testing]'
    echo "$wanted" > "$VENV/.ready"
fi

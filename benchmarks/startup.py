"""Does napari start slower with the plugin installed? Ratio of medians over alternating starts.

xvfb-run -a python benchmarks/startup.py
"""

from __future__ import annotations

import subprocess
import sys
from statistics import median

_START = """
import time
start = time.perf_counter()
from npe2 import PluginManager
manager = PluginManager.instance()
manager.discover()
if {disabled}:
    manager.disable("napari-xai-med")
import napari
viewer = napari.Viewer()
print(time.perf_counter() - start)
viewer.close()
"""


def seconds(*, disabled: bool) -> float:
    """Time until the window of a fresh napari is there."""
    code = _START.format(disabled=disabled)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main(rounds: int = 7) -> None:
    """Print both medians and their ratio."""
    seconds(disabled=True)  # files into the cache
    pairs = [(seconds(disabled=False), seconds(disabled=True)) for _ in range(rounds)]
    with_plugin, without = (median(values) for values in zip(*pairs, strict=True))
    print(f"napari with the plugin {with_plugin:.2f} s, without {without:.2f} s, ratio {with_plugin / without:.3f}")


if __name__ == "__main__":
    main()

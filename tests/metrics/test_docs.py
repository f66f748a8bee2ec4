from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from napari_xai_med.metrics.base import Need, metrics
from napari_xai_med.metrics.outcome import Better
from napari_xai_med.options import option_fields
from napari_xai_med.published import published_tables

DOCS = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
WAYS = {Better.HIGHER: ", higher is better", Better.LOWER: ", lower is better", Better.NEITHER: ""}


def metrics_table() -> str:
    """The tables at the beginning of docs/metrics.md: metrics by family, and their options."""
    rows = ["| family | metric | what it tells | its numbers | needs | paper |", "|---|---|---|---|---|---|"]
    kinds = sorted(metrics().items(), key=lambda item: (str(item[1].family), item[0]))
    for name, kind in kinds:
        # Numbers that mean the same kind of thing stand together.
        groups: dict[str, list[str]] = {}
        for score, quantity in kind.quantities.items():
            groups.setdefault(f"{quantity.range}{WAYS[quantity.better]}", []).append(f"`{score}`")
        numbers = "; ".join(f"{', '.join(names)} ({told})" for told, names in groups.items())
        needs = " and ".join(need for need in Need if need in kind.needs)
        panel = " (panel)" if kind.panel else ""
        title = f"**{kind.title}**{panel} `{name}`"
        rows.append(f"| {kind.family} | {title} | {kind.about} | {numbers} | {needs} | {kind.paper} |")
    rows += ["", "| option | default | meaning | of |", "|---|---|---|---|"]
    options: dict[tuple[str, str, str], list[str]] = {}
    for name, kind in kinds:
        for item in option_fields(kind):
            options.setdefault((item.name, _shown(item.default), item.metadata["text"]), []).append(f"`{name}`")
    rows += [f"| `{name}` | {default} | {text} | {', '.join(of)} |" for (name, default, text), of in options.items()]
    return "\n".join(rows) + "\n"


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def published_table(frame: pd.DataFrame) -> str:
    """The table of the published numbers in docs/metrics.md."""
    heads = {
        "published_dice": 'published "DICE"',
        "recomputed_dice": "computed again",
        "nothing_dice": "a map that marks nothing",
        "true_dice": "true Dice",
        "chance": "true Dice by chance",
        "published_mse": "published MSE",
        "recomputed_mse": "computed again",
        "nothing_mse": "a map that marks nothing",
        "true_mse": "true MSE",
    }
    rows = [f"| study, map | {' | '.join(heads.values())} |", f"|{'---|' * (len(heads) + 1)}"]
    for row in frame.to_dict("records"):
        rows.append(f"| {row['study']}, {row['cam']} | {' | '.join(f'{row[key]:.5f}' for key in heads)} |")
    return "\n".join(rows) + "\n"


def test_the_documented_table_is_the_registry() -> None:
    assert metrics_table() in DOCS, "put what metrics_table() returns at the beginning of docs/metrics.md"


def test_the_documented_published_numbers_come_from_the_files(shared_data: Callable[[str], Path]) -> None:
    table = published_table(published_tables(shared_data("mosmed_thesis")))
    assert f"\n\n{table}\n" in DOCS, "put what published_table() returns into docs/metrics.md"

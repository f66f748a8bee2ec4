from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_xai_med.explainers.base import explainers, make_explainer
from napari_xai_med.options import option_fields

DOCS = Path(__file__).parents[2] / "docs" / "methods.md"


def methods_tables() -> str:
    """The tables of docs/methods.md."""
    rows = ["| method | name | what its map is | published in | can speak against the class |", "|---|---|---|---|---|"]
    options: dict[tuple[str, str, str], list[str]] = {}
    for name, kind in explainers().items():
        told = (kind.__doc__ or "").splitlines()[0].removeprefix(f"{kind.title}: ")
        note = f" **{kind.caution}**" if kind.caution else ""
        sign = "yes" if make_explainer(name, {}).signed else "no"
        rows.append(f"| **{kind.title}** | `{name}` | {told[0].upper()}{told[1:]}{note} | {kind.paper} | {sign} |")
        for item in option_fields(kind):
            options.setdefault((item.name, _shown(item.default), item.metadata["text"]), []).append(kind.title)
    rows += ["", "| option | default | meaning | of |", "|---|---|---|---|"]
    rows += [f"| `{name}` | {default} | {text} | {', '.join(of)} |" for (name, default, text), of in options.items()]
    return "\n".join(rows) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " × ".join(map(str, value)) or "none"
    return str(value)


def test_the_documented_tables_are_the_registry() -> None:
    assert DOCS.read_text(encoding="utf-8").endswith(f"\n\n{methods_tables()}"), (
        "put what methods_tables() returns at the end of docs/methods.md"
    )

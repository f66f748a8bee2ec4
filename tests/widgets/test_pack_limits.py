from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from napari_xai_med.errors import InputError
from napari_xai_med.widgets.pack import PackWidget


def test_what_images_should_be_like_is_read_from_the_form(make_napari_viewer: Any, tmp_path: Path) -> None:
    (tmp_path / "net.pt").touch()
    widget = PackWidget(make_napari_viewer())
    widget.file.set_path(str(tmp_path / "net.pt"))
    widget.classes.setPlainText("a\nb")
    assert (widget.packing().value_range, widget.packing().spacing) == ((), ())
    widget.values.setText("-1, 1.5")
    widget.spacing.setText("0.7 5")
    assert (widget.packing().value_range, widget.packing().spacing) == ((-1.0, 1.5), (0.7, 5.0))
    widget.spacing.setText("fine")
    with pytest.raises(InputError, match="'fine' is no list of numbers; correct the spacing"):
        widget.packing()

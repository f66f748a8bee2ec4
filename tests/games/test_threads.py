"""The limit of threads is for as long as somebody computes, in whatever order they begin and end."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from napari_xai_med.games.threads import one_thread


def threads() -> list[int]:
    np.eye(2) @ np.eye(2)
    return [each["num_threads"] for each in ThreadpoolController().select(internal_api="openblas").info()]


def test_all_threads_are_back_when_the_last_one_ends() -> None:
    before = threads()
    first, second = ExitStack(), ExitStack()
    first.enter_context(one_thread())
    assert set(threads()) <= {1}
    second.enter_context(one_thread())
    first.close()
    assert set(threads()) <= {1}
    second.close()
    assert threads() == before
    with pytest.raises(ValueError, match="stop"), one_thread():
        raise ValueError("stop")
    assert threads() == before

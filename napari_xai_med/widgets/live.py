"""Explaining what is on screen as the slider or the plane moves."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from threading import Lock
from typing import Any

import napari
import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_xai_med.errors import Cancelled, InputError
from napari_xai_med.image import PLANES
from napari_xai_med.job import Job
from napari_xai_med.widgets.asked import Asked, Shown, explain
from napari_xai_med.widgets.heatmaps import Heatmaps, Series
from napari_xai_med.widgets.loader import Loader
from napari_xai_med.widgets.recent import Recent
from napari_xai_med.widgets.task import Task

REST_MS = 100
"""How long slider or plane have to rest before what they show is explained."""

_SLICES = 200
_BYTES = 512 * 2**20


class _Same:
    """An object in a key: the same only as itself, and not given back as long as the key is known."""

    def __init__(self, it: object) -> None:
        self.it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.it is other.it

    def __hash__(self) -> int:
        return id(self.it)


class Live(QObject):
    """Explains what is asked about whenever that is something else, in one layer that goes along.

    Parameters
    ----------
    heatmaps : Heatmaps
    ask : callable
        What the controls say; may raise an `InputError`.
    loader : Loader
    turn : Lock
        Of the task that must not work at the same time.
    parent : QObject

    Attributes
    ----------
    shown : Signal(list, bool)
        The list of `Shown` that is on screen now, and whether it is the result and no estimate.
    told : Signal(str)
        Why there is nothing to show.
    loaded : Signal(object)
        The classifier, whenever it was asked.
    """

    shown = Signal(list, bool)
    told = Signal(str)
    loaded = Signal(object)

    def __init__(
        self, heatmaps: Heatmaps, ask: Callable[[], Asked], loader: Loader, turn: Lock, parent: QObject
    ) -> None:
        super().__init__(parent)
        self.on = False
        self.series = Series(heatmaps, " (live)")
        self.task = Task(self, turn, quiet=True)
        self._viewer: napari.Viewer = heatmaps.viewer
        self._ask, self._loader = ask, loader
        self._known: Recent[list[Shown]] = Recent(_SLICES, _BYTES)
        self._wanted: Hashable = None
        self._asked: Asked | None = None
        self._class: str | None = None
        self._followed: Any = None
        self._paused, self._generation = False, 0
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._rest.timeout.connect(self._begin)
        self.task.running_changed.connect(self._begin_if_due)
        self.task.failed.connect(self._fail)

    def switch(self, on: bool) -> None:
        """Begin or end to explain what is on screen; the layer stays."""
        if on == self.on:
            return
        self.on = on
        events = self._viewer.dims.events
        for event in (events.current_step, events.order, events.ndisplay):
            event.connect(self.look) if on else event.disconnect(self.look)
        self._follow(None)
        self._forget_wish()
        self._forget_known()
        self.look()

    def _follow(self, layer: Any) -> None:
        """Look whenever another plane of this layer is shown in 3D, and of no layer that was followed before."""
        if layer is self._followed:
            return
        for each in (self._followed, layer):
            for event in () if each is None else (each.events.depiction, each.plane.events):
                event.disconnect(self.look) if each is self._followed else event.connect(self.look)
        self._followed = layer

    def pause(self, paused: bool) -> None:
        """Leave the classifier to somebody else."""
        self._paused = paused
        if paused:
            self._forget_wish()
        else:
            self.look()

    def explain_class(self, name: str | None) -> None:
        """Explain this class instead of what the controls say, until None is given."""
        self._class = name
        self.look()

    def _forget_wish(self) -> None:
        self._wanted, self._asked = None, None
        self._rest.stop()
        self.task.cancel()

    def look(self, *_: Any) -> None:
        """Show what is known of what is on screen now, or find it out once that rests."""
        if not self.on or self._paused:
            return
        try:
            asked = self._ask()
        except InputError as error:
            self._follow(None)
            self._forget_wish()
            self.told.emit(str(error))
            return
        self._follow(asked.chosen.view.layer)
        if self._class is not None:
            asked = replace(asked, targets=(self._class,))
        classifier = self._loader.known
        key = self._key(asked, sliced=classifier is None or classifier.spatial_dims == 2)
        if key == self._wanted:
            return
        self._forget_wish()
        self._wanted = key
        found = self._known.get(key)
        if found is None:
            self._asked = asked
            self._rest.start()
        else:
            self._show(found, final=True)

    def _key(self, asked: Asked, *, sliced: bool) -> tuple[Hashable, ...]:
        """What the answer depends on; the slice only where the classifier looks at slices, or may do so."""
        request = asked.request if sliced else replace(asked.request, plane=PLANES[0], slice=None)
        layers = [view.layer for view in asked.chosen.views]
        layers += [layer for layer in (asked.drawn.labels, asked.drawn.mask) if layer is not None]
        return (
            asked.targets,
            self._loader.key,
            repr(request.to_dict()),
            tuple((view.axes, view.volume) for view in asked.chosen.views),
            asked.chosen.oblique if sliced else None,
            tuple((layer, _Same(layer.data), _place(layer)) for layer in layers),
        )

    def drawn(self) -> None:
        """Somebody drew in a layer that a question may mean, and what is known of it is no longer true."""
        self._forget_known()
        self._forget_wish()
        self.look()

    def _forget_known(self) -> None:
        """Also what is being found out now."""
        self._known.clear()
        self._generation += 1

    def _begin_if_due(self, running: bool) -> None:
        if not running and not self._rest.isActive():
            self._begin()

    def _begin(self) -> None:
        """Start to work on the wish, or as soon as the work before has ended."""
        if self._asked is None or self.task.running:
            return
        asked, key, load = self._asked, self._wanted, self._loader.chosen()
        self._asked = None
        generation = self._generation
        # As things are now: they may be others when the work ends, where only it may tell whether the slice counts.
        known_as = {sliced: self._key(asked, sliced=sliced) for sliced in (False, True)}

        def work(job: Job) -> Any:
            classifier = load(job)
            return classifier, explain(asked.seen_by(classifier).read(), classifier, job)

        def estimate(found: list[Shown]) -> None:
            if key == self._wanted:
                self._show(found, final=False)

        def done(result: Any) -> None:
            classifier, found = result
            if generation == self._generation:
                self._keep(asked, known_as[classifier.spatial_dims == 2], found)
            if generation == self._generation and key == self._wanted:
                self._wanted = known_as[classifier.spatial_dims == 2]
                self.loaded.emit(classifier)
                self._show(found, final=True)

        self.task.start(work, done, estimate)

    def _keep(self, asked: Asked, key: tuple[Hashable, ...], found: list[Shown]) -> None:
        """Remember a result, also as that of its class by name."""
        size = sum(_size(each) for each in found)
        self._known.put(key, found, size)
        if asked.targets == (None,):
            # The targets come first in a key.
            self._known.put(((found[0].attribution.class_name,), *key[1:]), found, size)

    def _show(self, found: list[Shown], *, final: bool) -> None:
        self.series.show(found, final=final)
        self.shown.emit(found, final)

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, Cancelled):
            self.told.emit(str(error))


def _place(layer: Any) -> bytes:
    """Where a layer lies."""
    parts = (layer.scale, layer.translate, layer.rotate, layer.shear, layer.affine.affine_matrix)
    return b"".join(np.asarray(part, float).tobytes() for part in parts)


def _size(shown: Shown) -> int:
    """About how many bytes are kept of an attribution."""
    attribution = shown.attribution
    labels = 0 if attribution.segments is None else attribution.segments.labels.nbytes
    return attribution.values.nbytes + attribution.raw.nbytes + labels

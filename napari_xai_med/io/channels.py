"""Contributions of channels to files."""

from __future__ import annotations

from pathlib import Path

from napari_xai_med.channel_values import METHOD, ChannelContributions
from napari_xai_med.errors import InputError
from napari_xai_med.image import Image
from napari_xai_med.io.results import image_stem


def save_channels(image: Image, found: ChannelContributions, folder: str | Path) -> tuple[Path, Path, Path]:
    """Write the bars as PNG, the table as CSV and the record as JSON.

    Parameters
    ----------
    image : Image
        Whose channels they are.
    found : ChannelContributions
    folder : str or Path
        Made where it does not exist. Files of the same image are replaced.

    Raises
    ------
    InputError
        If the folder can't be written.
    """
    from napari_xai_med.figures_channels import channel_bars

    target, request = Path(folder).expanduser(), found.record.request
    place = "" if request["slice"] is None else f"_{request['plane']}{request['slice']}"
    stem = f"{image_stem(image, place)}_{METHOD}"
    figure, table, record = (target / f"{stem}{suffix}" for suffix in (".png", ".csv", ".json"))
    try:
        target.mkdir(parents=True, exist_ok=True)
        channel_bars(found).savefig(figure, dpi=110)
        found.table().to_csv(table, index=False)
        record.write_text(found.record.to_json(), encoding="utf-8")
    except OSError as error:
        raise InputError(f"The results can't be written to {target}: {error.strerror or error}.") from error
    return figure, table, record

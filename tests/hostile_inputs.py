"""Images and records that are hostile or broken; see hostile_files.py."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from hostile_files import SCALE, SHAPE, Hostile, Make, listed_in, reading, touch

IMAGES: dict[str, Hostile] = {}
RECORDS: dict[str, Hostile] = {}


def image(says: str) -> Callable[[Make], Make]:
    return listed_in(IMAGES, says, 2)


def record(says: str, code: int = 2) -> Callable[[Make], Make]:
    return listed_in(RECORDS, says, code)


# Images


def _nifti(folder: Path, name: str = "a.nii", **header: Any) -> Path:
    """A NIfTI file with something else in its header."""
    nibabel.Nifti1Image(np.ones(SHAPE, np.float32), np.eye(4)).to_filename(folder / "whole.nii")
    content = bytearray((folder / "whole.nii").read_bytes())
    dtype = nibabel.Nifti1Header().structarr.dtype.newbyteorder("<")
    fields = np.frombuffer(content, dtype, 1)
    for key, value in header.items():
        fields[key] = value
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder / name


_TWO_GIGABYTES = [3, 1024, 1024, 512, 1, 1, 1, 1]


@image("can't hold")
def nifti_that_claims_two_gigabytes(folder: Path) -> Path:
    return _nifti(folder, dim=_TWO_GIGABYTES)


@image("can't hold")
def packed_nifti_that_claims_two_gigabytes(folder: Path) -> Path:
    return _nifti(folder, "a.nii.gz", dim=_TWO_GIGABYTES)


@image("can't be read as NIfTI")
def nifti_with_negative_sizes(folder: Path) -> Path:
    return _nifti(folder, dim=[3, -16, 16, 16, 1, 1, 1, 1])


@image("can't be read as NIfTI")
def nifti_of_unknown_numbers(folder: Path) -> Path:
    return _nifti(folder, datatype=9999)


@image("is not invertible")
def nifti_without_a_place(folder: Path) -> Path:
    return _nifti(folder, srow_x=np.nan)


@image("is not a volume")
def nifti_with_an_axis_of_no_length(folder: Path) -> Path:
    return _nifti(folder, dim=[3, 16, 0, 16, 1, 1, 1, 1])


@image("can't be read as NIfTI")
def text_named_nii(folder: Path) -> Path:
    (folder / "a.nii").write_text("scan")
    return folder / "a.nii"


@image("can't be read as NIfTI")
def empty_nii(folder: Path) -> Path:
    (folder / "a.nii.gz").write_bytes(b"")
    return folder / "a.nii.gz"


@image("can't be read as NIfTI")
def truncated_nii(folder: Path) -> Path:
    path = _nifti(folder, "a.nii.gz")
    path.write_bytes(path.read_bytes()[:-20])
    return path


@image("There is no file")
def folder_named_nii(folder: Path) -> Path:
    (folder / "a.nii").mkdir()
    return folder / "a.nii"


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@image("can't be read as a picture")
def png_bomb(folder: Path) -> Path:
    """40 000 x 40 000 grey points in a few hundred bytes."""
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    parts = _chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(bytes(100_000))), _chunk(b"IEND", b"")
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return folder / "a.png"


@image("can't be read as a picture")
def text_named_png(folder: Path) -> Path:
    (folder / "a.png").write_text("picture")
    return folder / "a.png"


@image("can't hold")
def tiff_that_claims_ten_gigabytes(folder: Path) -> Path:
    import tifffile

    path = folder / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8))
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[name].overwrite(100_000)
    return path


@image("can't be read as a picture")
def truncated_tiff(folder: Path) -> Path:
    import tifffile

    path = folder / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), compression="zlib")
    path.write_bytes(path.read_bytes()[:60])
    return path


# Records


def _record(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A record of an explanation, changed."""
    from napari_xai_med import explain, load_model
    from napari_xai_med.samples import sample_files

    made = explain(sample_files("chest_ct_lesion")[0], load_model("chest_ct_3d")).record
    content = json.loads(made.to_json())
    change(content)
    path = folder / "record.json"
    path.write_text(json.dumps(content))
    return path


@record("is not a record")
def record_nested_without_end(folder: Path) -> Path:
    (folder / "record.json").write_text('{"format": 1, "image":' + "[" * 100_000)
    return folder / "record.json"


@record("is not a record")
def record_that_is_a_list(folder: Path) -> Path:
    (folder / "record.json").write_text("[1]")
    return folder / "record.json"


@record("which no configuration needs")
def record_without_end(folder: Path) -> Path:
    (folder / "record.json").write_text(" " * 2_000_000)
    return folder / "record.json"


@record("'software' is missing")
def record_without_software(folder: Path) -> Path:
    return _record(folder, lambda content: content.pop("software"))


@record("threads of software have to be from 1 to 1024")
def record_with_a_billion_threads(folder: Path) -> Path:
    return _record(folder, lambda content: content["software"].update(threads=10**9))


@record("source of image is of the wrong kind")
def record_of_no_image(folder: Path) -> Path:
    return _record(folder, lambda content: content["image"].update(source=["/etc/passwd"]))


@record("A request has no 'trust'")
def record_that_wants_trust(folder: Path) -> Path:
    return _record(folder, lambda content: content["request"].update(trust=True))


@record("A request can't have options")
def record_with_options_that_are_none(folder: Path) -> Path:
    return _record(folder, lambda content: content["request"].update(options=[1]))


@record("after the image was read", 4)
def record_with_a_reader_that_is_a_program(folder: Path) -> Path:
    steps = [SCALE, {"_target_": "Compose", "transforms": [reading(folder)]}]
    return _record(folder, lambda content: content["request"].update(preprocessing=steps))


@record("expression", 4)
def record_with_an_expression(folder: Path) -> Path:
    steps = [SCALE | {"minv": f"${touch(folder)}"}]
    return _record(folder, lambda content: content["request"].update(preprocessing=steps))

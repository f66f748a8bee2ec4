from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported_networks import export, load, small
from helpers import classifier_of, write_bundle
from monai.networks.nets import DenseNet121
from torch import nn

from napari_xai_med import Image, explain, load_model, predict
from napari_xai_med.errors import ModelError, UntrustedError
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.formats.exported import Exported
from napari_xai_med.models.receptive_field import trace_layers

CONFIG = {"preprocessing": {"_target_": "Compose", "transforms": [{"_target_": "ScaleIntensityd", "keys": "image"}]}}


def dense() -> nn.Module:
    torch.manual_seed(0)
    return DenseNet121(2, 1, 3).eval()


CASES = [
    pytest.param(dense, (1, 64, 64), "features.denseblock2", id="DenseNet121"),
    pytest.param(small, (1, 16, 16, 16), "features.0", id="3D"),
    pytest.param(small, (1, 16, 16, 16), "relu", id="used twice"),
]


@pytest.mark.parametrize(("make", "shape", "layer"), CASES)
def test_it_answers_and_explains_as_the_original_does(
    make: Callable[[], nn.Module], shape: tuple[int, ...], layer: str, tmp_path: Path
) -> None:
    network = make()
    program = load(export(network, tmp_path / "a.pt2", (1, *shape)))
    images = torch.rand(3, *shape)
    torch.testing.assert_close(program(images), network(images), atol=1e-5, rtol=0)
    theirs, ours = trace_layers(network, shape), trace_layers(program, shape)
    assert ours == theirs
    classes = network(images).shape[1]
    image = Image.from_array(images[0, 0].numpy())
    maps = [
        explain(image, classifier_of(n, len(shape) - 1, classes), "gradcam", layers=layer).raw
        for n in (network, program)
    ]
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-5 * float(np.abs(maps[0]).max()))
    assert maps[0].max() > 0


def test_files_of_older_versions_are_refused_with_advice(tmp_path: Path) -> None:
    """As PyTorch 2.1 to 2.7 wrote them, which today's still reads."""
    from torch._export.serde.serialize import SCHEMA_VERSION, serialize

    parts = serialize(torch.export.export(small(), (torch.rand(1, 1, 16, 16, 16),)))
    path = tmp_path / "a.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("serialized_exported_program.json", parts.exported_program)
        archive.writestr("serialized_state_dict.pt", parts.state_dict)
        archive.writestr("serialized_constants.pt", parts.constants)
        archive.writestr("serialized_example_inputs.pt", parts.example_inputs)
        archive.writestr("version", ".".join(map(str, SCHEMA_VERSION)))
    images = torch.rand(1, 1, 16, 16, 16)
    torch.testing.assert_close(torch.export.load(path).module()(images), small()(images))
    with pytest.raises(
        ModelError, match=r"written by PyTorch 2\.7 or older; .* torch\.export\.save of PyTorch 2\.8 or later"
    ):
        load(path)


def test_axes_can_be_free(tmp_path: Path) -> None:
    free = torch.export.Dim.AUTO
    path = export(
        small(), tmp_path / "a.pt2", (2, 1, 16, 16, 16), dynamic_shapes=({0: free, 2: free, 3: free, 4: free},)
    )
    images = torch.rand(3, 1, 20, 16, 12)
    torch.testing.assert_close(load(path)(images), small()(images))
    facts = Exported().facts(path)
    assert facts.input_shape == (1, None, None, None)
    assert [(output.numbers, output.ending) for output in facts.outputs] == [(2, "linear")]


def test_several_fixed_images_leave_gradients_but_no_layers(tmp_path: Path) -> None:
    program = load(export(small(), tmp_path / "a.pt2", (2, 1, 16, 16, 16)))
    images = torch.rand(3, 1, 16, 16, 16)
    torch.testing.assert_close(program(images), small()(images))
    assert Exported().gives_of(program) == {Gives.GRADIENTS}


def test_another_shape_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    with pytest.raises(ModelError, match=r"exported for images of shape \(1, 16, 16, 16\)"):
        predict(Image.from_array(np.random.default_rng(0).normal(size=(20, 16, 16))), load_model(bundle))


def test_training_mode_and_decompositions_change_nothing(tmp_path: Path) -> None:
    images = torch.rand(1, 1, 16, 16, 16)
    expected = small()(images)
    trained = load(export(small().train(), tmp_path / "a.pt2", (1, 1, 16, 16, 16)))
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    torch.testing.assert_close(trained(images), expected)
    for name, value in trained.state_dict().items():
        assert torch.equal(value, before[name])
    core = torch.export.export(small(), (images,)).run_decompositions()
    torch.export.save(core, tmp_path / "b.pt2")
    torch.testing.assert_close(load(tmp_path / "b.pt2")(images), expected)


def make_bundle(tmp_path: Path) -> Path:
    bundle = write_bundle(tmp_path / "b", CONFIG, ("a", "b"))
    export(small(), bundle / "models" / "model.pt2", (1, 1, 16, 16, 16))
    return bundle


def test_a_bundle_needs_no_network_def(tmp_path: Path) -> None:
    classifier = load_model(make_bundle(tmp_path))
    assert classifier.gives == set(Gives)
    image = Image.from_array(np.random.default_rng(0).normal(size=(16, 16, 16)))
    scaled = (image.data - image.data.min()) / (image.data.max() - image.data.min())
    expected = small()(torch.from_numpy(scaled)[None].float())[0].detach()
    np.testing.assert_allclose(predict(image, classifier).logits, expected, atol=1e-5)
    assert explain(image, classifier).raw.shape == (8, 8, 8)


class Hostile:
    """Makes a file as soon as it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def changed(path: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """A copy of a program with another content of one of its files."""
    result = path.with_name("hostile.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(result, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            # torch reads archives whose files lie in a folder of any name.
            new.writestr(entry.filename, change(content) if entry.filename.endswith(name) else content)
    return result


def with_json(change: Callable[[Any], None]) -> Callable[[bytes], bytes]:
    def apply(content: bytes) -> bytes:
        value = json.loads(content)
        change(value)
        return json.dumps(value).encode()

    return apply


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return export(small(), tmp_path / "a.pt2", (1, 1, 16, 16, 16))


def pickled(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Hostile(mark), buffer)
    return buffer.getvalue()


def test_pickles_beside_the_graph_are_not_read(path: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    hostile = changed(path, "sample_inputs/model.pt", lambda _: pickled(mark))
    load(hostile)
    assert not mark.exists()
    # It is hostile indeed: torch's own loader runs it.
    with suppress(TypeError):  # its warning about that can't be formatted
        torch.export.load(hostile)
    assert mark.exists()


def test_pickled_weights_are_refused(path: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    first = changed(path, "weights_config.json", with_json(lambda c: c["config"]["fc.bias"].update(use_pickle=True)))
    file = json.loads(zipfile.ZipFile(first).read("a/data/weights/model_weights_config.json"))
    name = f"data/weights/{file['config']['fc.bias']['path_name']}"
    first.rename(tmp_path / "first.pt2")
    hostile = changed(tmp_path / "first.pt2", name, lambda _: pickle.dumps(Hostile(mark)))
    with pytest.raises(UntrustedError, match=r"'fc.bias' in it is stored as code"):
        load(hostile)
    assert not mark.exists()


def test_expressions_are_not_evaluated(path: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"__import__('pathlib').Path({str(mark)!r}).touch() or 1"

    def change(content: Any) -> None:
        for value in content["graph_module"]["graph"]["tensor_values"].values():
            if value["sizes"]:
                value["sizes"][0] = {"as_expr": {"expr_str": code, "hint": {"as_int": 1}}}
        content["guards_code"] = [code]
        content["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = code

    load(changed(path, "models/model.json", with_json(change)))
    assert not mark.exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.set_.source_Storage",
        "torch.ops.own.operator.default",
        "torch.ops.aten.relu.default.__class__",
        "torch.hub.load",
        "_operator.attrgetter",
        "torch.ops.higher_order.cond",
    ],
)
def test_operators_that_are_not_known_are_refused(target: str, path: Path) -> None:
    def change(content: Any) -> None:
        content["graph_module"]["graph"]["nodes"][0]["target"] = target

    with pytest.raises(UntrustedError, match="is not known to be harmless"):
        load(changed(path, "models/model.json", with_json(change)))


def core(path: Path) -> Path:
    """The same network in PyTorch's basic operators, which check less of what they are given."""
    path = path.with_name("core.pt2")
    torch.export.save(torch.export.export(small(), (torch.rand(1, 1, 16, 16, 16),)).run_decompositions(), path)
    return path


def node_of(content: Any, target: str) -> Any:
    nodes = content["graph_module"]["graph"]["nodes"]
    return next(node for node in nodes if node["target"].startswith(f"torch.ops.aten.{target}."))


def argument(content: Any, target: str, name: str, value: Any) -> None:
    inputs = node_of(content, target)["inputs"]
    inputs[:] = [item for item in inputs if item["name"] != name] + [{"name": name, "arg": value, "kind": 1}]


def short_variance(content: Any) -> None:
    argument(content, "_native_batch_norm_legit_no_training", "running_var", {"as_tensor": {"name": "p_fc_bias"}})


def sizes_as_type(content: Any) -> None:
    """A type of numbers that there is not, to sum in."""
    node_of(content, "mean")["target"] = "torch.ops.aten.sum.dim_IntList"
    argument(content, "sum", "dtype", {"as_int": -5})


def huge_window(content: Any) -> None:
    """The 16 x 32 patches of an image put back together, far outside of it."""
    node = node_of(content, "mean")
    settings = {
        "output_size": [17, 33],
        "kernel_size": [2, 2],
        "dilation": [1, 1],
        "padding": [2**31, 0],
        "stride": [1, 1],
    }
    node["target"] = "torch.ops.aten.col2im.default"
    node["inputs"] = [{"name": "self", "arg": {"as_tensor": {"name": "view"}}, "kind": 1}]
    for name, value in settings.items():
        argument(content, "col2im", name, {"as_ints": value})


def numbers_only(content: Any) -> None:
    node = node_of(content, "relu")
    node |= {"target": "torch.ops.aten.remainder.int"}
    node["inputs"] = [{"name": name, "arg": {"as_int": k}, "kind": 1} for name, k in (("a", 1), ("b", 0))]


@pytest.mark.parametrize("change", [short_variance, sizes_as_type, huge_window, numbers_only])
def test_arguments_that_would_bring_pytorch_down_are_one_sentence(
    change: Callable[[Any], None], path: Path, tmp_path: Path
) -> None:
    """Asked in another process: without the checks it dies of a signal, or does not end."""
    hostile = changed(core(path), "models/model.json", with_json(change))
    hostile.rename(tmp_path / "h.pt2")
    code = (
        "import sys, torch; from pathlib import Path; from napari_xai_med.errors import ModelError\n"
        "from napari_xai_med.models.formats.exported import Exported\n"
        "try: Exported().load(Path(sys.argv[1]), None)(torch.rand(1, 1, 16, 16, 16)); print('answered')\n"
        "except (ModelError, RuntimeError, ValueError) as error: print('refused', error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "h.pt2")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert answer.stdout.startswith("refused"), (answer.returncode, answer.stdout, answer.stderr[-500:])


def set_sizes(content: Any) -> None:
    content["config"]["fc.bias"]["tensor_meta"]["sizes"] = [{"as_int": 1 << 40}]
    content["config"]["fc.bias"]["tensor_meta"]["strides"] = [{"as_int": 0}]


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("weights_config.json", with_json(set_sizes), "is not a program"),
        ("models/model.json", lambda _: b"{", "is not a program"),
        ("models/model.json", lambda _: b"[" * 200_000, "is not a program"),
        ("models/model.json", lambda c: c.replace(b'"fc.weight"', b'"fc.nothing"'), "is not a program"),
        ("models/model.json", lambda c: c.replace(b'"major": 8', b'"major": 99'), "by another PyTorch"),
        ("byteorder", lambda _: b"big", "big-endian"),
    ],
    ids=["size", "text", "nested", "name", "version", "order"],
)
def test_damaged_files_are_one_sentence(name: str, change: Callable[[bytes], bytes], match: str, path: Path) -> None:
    with pytest.raises(ModelError, match=match):
        load(changed(path, name, change))


def test_an_archive_that_swells_is_refused(path: Path) -> None:
    hostile = path.with_name("swells.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(hostile, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        new.writestr("a/data/weights/weight_99", bytes(10_000_000))
    with pytest.raises(ModelError, match="claims to hold more than its size"):
        load(hostile)


def test_a_truncated_file_is_one_sentence(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])
    # The zip of the example inputs, which lies in that of the program, may now be taken for the whole.
    with pytest.raises(ModelError, match=r"is not a program|holds no models/model.json"):
        load(path)


def test_modules_may_be_called_like_anything(path: Path) -> None:
    for name in ("forward", "__class__", "_modules", "facts", "training"):
        renamed = changed(path, "models/model.json", lambda c, name=name: c.replace(b"conv,conv", f"c,{name}".encode()))
        images = torch.rand(1, 1, 16, 16, 16)
        torch.testing.assert_close(load(renamed)(images), small()(images))

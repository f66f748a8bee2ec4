from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ones
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from monai.networks.nets import DenseNet121, EfficientNetBN, SEResNet50, UNet, ViT, resnet18, resnet50
from torch import Tensor, nn
from torch.nn import functional as F

from napari_xai_med.errors import ModelError
from napari_xai_med.models.architectures import build
from napari_xai_med.models.layouts import Layout, Order
from napari_xai_med.models.receptive_field import Attention, ReceptiveField, default_layer, trace, trace_layers


def support(network: nn.Module, shape: tuple[int, ...], cell: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """First and last input index that a cell of the network's output depends on, by autograd.

    The maximum of a pooling lies somewhere else in each random input; together they show all it can see.
    """
    touched = torch.zeros(shape[1:])
    for _ in range(60 if "max" in repr(network) else 1):
        x = torch.rand((1, *shape), dtype=torch.double, requires_grad=True)
        output = network.double()(x)
        (gradient,) = torch.autograd.grad(output[(0, slice(None), *cell)].sum(), x)
        touched += gradient[0].abs().sum(0)
    index = torch.nonzero(touched).numpy()
    return index.min(0), index.max(0)


def last_field(network: nn.Module, shape: tuple[int, ...]) -> tuple[ReceptiveField, tuple[int, ...]]:
    layer = trace_layers(nn.Sequential(network), shape)[-1]
    return layer.receptive_field, layer.shape


def check(network: nn.Module, shape: tuple[int, ...], cell: tuple[int, ...]) -> None:
    field, size = last_field(network, shape)
    assert field.followed
    assert all(c < n for c, n in zip(cell, size, strict=True))
    low, high = support(network, shape, cell)
    assert low.min() > 0, "the cell must not touch the border"
    assert (high < np.array(shape[1:]) - 1).all(), "the cell must not touch the border"
    centre = np.array(field.start) + np.array(field.jump) * np.array(cell)
    np.testing.assert_allclose(centre, (low + high) / 2)
    np.testing.assert_allclose(field.size, high - low + 1)


@pytest.mark.parametrize(
    ("dims", "kernel", "stride", "padding", "dilation"),
    list(product((2, 3), (1, 2, 3, 4), (1, 2, 3, 4), (0, 1), (1, 2))),
)
def test_convolutions(dims: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
    kind = (nn.Conv2d, nn.Conv3d)[dims - 2]
    net = nn.Sequential(
        ones(kind(1, 2, 3, padding=1)),
        ones(kind(2, 3, kernel, stride, min(padding, kernel - 1), dilation)),
        ones(kind(3, 2, 2, 2)),
    )
    size = 36 if dims == 3 else 48
    shape = (1, *range(size, size + dims))
    _, cells = last_field(net, shape)
    check(net, shape, tuple(n // 2 for n in cells))


class Branches(nn.Module):
    def __init__(self, *branches: nn.Module, join: bool) -> None:
        super().__init__()
        self.branches, self.join = nn.ModuleList(branches), join

    def forward(self, x: Tensor) -> Tensor:
        outputs = [branch(x) for branch in self.branches]
        return torch.cat(outputs, 1).mean(1, keepdim=True) if self.join else sum(outputs)


@st.composite
def layers(draw: Any, dims: int) -> nn.Module:
    """A layer of positive weights from one channel to one, with parameters of its own along each axis."""
    kernel = draw(st.tuples(*[st.integers(1, 4)] * dims))
    stride = draw(st.tuples(*[st.integers(1, 3)] * dims))
    dilation = draw(st.tuples(*[st.integers(1, 2)] * dims))
    widths = draw(st.tuples(*[st.integers(0, 3)] * 2 * dims))
    conv, pool, pad = (
        (nn.Conv2d, nn.AvgPool2d, nn.ConstantPad2d),
        (nn.Conv3d, nn.AvgPool3d, nn.ConstantPad3d),
    )[dims - 2]
    convolution = ones(conv(1, 1, kernel, stride, 0, dilation))
    wide = ones(conv(1, 1, 3, stride, 1))
    return draw(
        st.sampled_from(
            [
                nn.Sequential(pad(widths, 0.0), convolution),
                pool(kernel, stride, tuple(k // 2 for k in kernel), ceil_mode=True),
                Branches(wide, pool(1, stride), join=False),
                Branches(wide, pool(1, stride), join=True),
            ]
        )
    )


@settings(max_examples=40, deadline=None)
@given(data=st.data(), dims=st.sampled_from([2, 2, 3]))
def test_random_networks(data: st.DataObject, dims: int) -> None:
    net = nn.Sequential(*data.draw(st.lists(layers(dims), min_size=1, max_size=5 - dims)))
    shape = (1, 280, 271) if dims == 2 else (1, 70, 71, 72)
    field, cells = last_field(net, shape)
    cell = np.array(cells) // 2
    centre = np.array(field.start) + np.array(field.jump) * cell
    reach = (np.array(field.size) - 1) / 2
    # At the far end strides may leave out up to three cells of every layer, and padding begins there.
    assume((centre - reach >= 0).all() and (centre + reach + 3 * np.array(field.jump) < shape[1:]).all())
    low, high = support(net, shape, tuple(cell))
    np.testing.assert_allclose(low, centre - reach)
    np.testing.assert_allclose(high, centre + reach)


class Functional(nn.Module):
    """A network of functions, each of which has to be followed without a module to name it."""

    def __init__(self, steps: Any, name: str = "") -> None:
        super().__init__()
        self.steps, self.name = steps, name
        self.first = ones(nn.Conv2d(1, 2, 3, 2, 1))

    def extra_repr(self) -> str:
        return self.name

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(self.first(x))


FUNCTIONS: dict[str, Any] = {
    "asymmetric pad": lambda x: F.avg_pool2d(F.pad(x, (3, 0, 1, 2)), 3, 2),
    "max pool with ceil": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "max pool with dilation": lambda x: F.max_pool2d(x, 2, 1, 0, 3),
    "average pool with padding": lambda x: F.avg_pool2d(x, 4, 3, 1),
    "adaptive pool": lambda x: F.adaptive_avg_pool2d(x[:, :, :30], (10, x.shape[3] // 2)),
    "strided slice": lambda x: x[:, :, 1::2, 2:-1],
    "crop from the end": lambda x: x[:, :, -20:, :-3],
    "flip": lambda x: x.flip(2),
    "residual branch": lambda x: x + F.avg_pool2d(x, 3, 1, 1),
    "in place": lambda x: x.clone().mul_(2).add_(F.avg_pool2d(x, 5, 1, 2)),
    "concatenated branches": lambda x: torch.cat([x, F.avg_pool2d(x, 3, 1, 1)], 1),
    "channels last and back": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "linear over channels": lambda x: F.linear(x.permute(0, 2, 3, 1), torch.ones(4, 2, dtype=x.dtype)).permute(
        0, 3, 1, 2
    ),
    "tokens and back": lambda x: x.flatten(2).transpose(1, 2).transpose(1, 2).unflatten(2, x.shape[2:]),
    "gate": lambda x: x * x.mean((2, 3), keepdim=True).detach(),
    "split": lambda x: torch.split(x, 7, 2)[1],
    "chunk of channels": lambda x: x.chunk(2, 1)[1],
    "stack of channels": lambda x: torch.stack([x[:, 0], x[:, 1]], 1),
    "repeated channels": lambda x: F.avg_pool2d(x[:, :1].repeat(1, 3, 1, 1), 3, 2),
    "indexed channels": lambda x: F.avg_pool2d(x[:, [0, 1, 0]], 3, 2),
    "selected channels": lambda x: x.index_select(1, torch.arange(2, device=x.device)),
    "gated channels": lambda x: F.glu(x, 1),
    "rolled channels": lambda x: x.roll(1, 1),
    "unit length": lambda x: F.normalize(torch.cat([x, x**2], 1), dim=1),
    "larger of two": lambda x: torch.max(x, 2 * x),
    "weights from the left": lambda x: (torch.ones(3, 2).to(x) @ x.transpose(1, 2)).transpose(1, 2),
    "pool without batch": lambda x: F.avg_pool2d(x[0], 3, 2)[None],
    "pool by reshape": lambda x: x[..., :30, :].unflatten(3, (-1, 4)).unflatten(2, (-1, 3)).mean((3, 5)),
    "space to channels": lambda x: F.pixel_unshuffle(x[:, :, :30], 2),
    "nearest to a quarter": lambda x: F.interpolate(x, scale_factor=0.25),
    "nearest exact to a quarter": lambda x: F.interpolate(x, scale_factor=0.25, mode="nearest-exact"),
    "bilinear to a half of an odd size": lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear"),
    "bilinear to a third": lambda x: F.interpolate(x[..., :30, :30], size=(10, 10), mode="bilinear"),
    "bicubic to a quarter": lambda x: F.interpolate(x, scale_factor=0.25, mode="bicubic"),
    "smoothed bilinear to a half": lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    net, shape = Functional(FUNCTIONS[name], name), (1, 61, 64)
    _, cells = last_field(net, shape)
    check(net, shape, tuple(n // 2 for n in cells))


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (4, 2), (3, 3), (5, 3)])
def test_transposed_convolutions_keep_the_mean_centre(kernel: int, stride: int) -> None:
    """Their cells see unevenly: only the mean over a period of cells is where the formula says."""
    net = nn.Sequential(ones(nn.Conv2d(1, 1, 3, 2, 1)), ones(nn.ConvTranspose2d(1, 1, kernel, stride)))
    field, cells = last_field(net, (1, 48, 48))
    middle = cells[0] // 2
    centres = []
    for k in range(stride):
        x = torch.rand((1, 1, 48, 48), requires_grad=True)
        (gradient,) = torch.autograd.grad(net(x)[0, 0, middle + k, middle], x)
        weights = gradient[0, 0].sum(1).numpy()
        centres.append((weights * np.arange(48)).sum() / weights.sum() - field.jump[0] * k)
    expected = field.start[0] + field.jump[0] * middle
    assert np.mean(centres) == pytest.approx(expected, abs=field.jump[0] / 2)


@pytest.mark.parametrize(("mode", "corners"), [("nearest", None), ("bilinear", False), ("bilinear", True)])
def test_interpolation(mode: str, corners: bool | None) -> None:
    extra = {} if corners is None else {"align_corners": corners}
    net = Functional(lambda x: F.interpolate(x, scale_factor=2, mode=mode, **extra))
    field, cells = last_field(net, (1, 40, 40))
    ramp = torch.arange(40.0).expand(1, 1, 40, 40)
    seen = net(ramp)[0, 0, 20].detach().numpy()
    positions = field.start[1] + field.jump[1] * np.arange(cells[1])
    inner = slice(4, -4)
    if mode == "nearest":
        # A pair of cells repeats its source, which lies between them.
        seen, positions = seen.reshape(-1, 2).mean(1), positions.reshape(-1, 2).mean(1)
    np.testing.assert_allclose(positions[inner], seen[inner], atol=1e-4)


@pytest.mark.parametrize(
    ("network", "shape", "jump"),
    [
        (DenseNet121(3, 1, 2), (1, 64, 64, 64), 32),
        (DenseNet121(2, 3, 2), (3, 96, 128), 32),
        (resnet18(spatial_dims=3, n_input_channels=1, num_classes=2), (1, 64, 48, 64), 16),
        (SEResNet50(spatial_dims=2, in_channels=3, num_classes=2), (3, 128, 128), 32),
        (EfficientNetBN("efficientnet-b0", False, spatial_dims=2, in_channels=3), (3, 224, 224), 32),
    ],
    ids=["densenet3d", "densenet2d", "resnet3d", "seresnet2d", "efficientnet2d"],
)
def test_monai_networks_are_followed(network: nn.Module, shape: tuple[int, ...], jump: int) -> None:
    layers = trace_layers(network, shape)
    assert all(layer.receptive_field.followed for layer in layers if layer.is_convolution and max(layer.shape) > 1)
    last = default_layer(layers)
    assert last.receptive_field.jump == (jump,) * (len(shape) - 1)


def test_the_same_padding_of_efficientnet_shifts_the_map() -> None:
    """Half-pixel resizing would put cell 0 at 15.5; the padding on one side only puts it at 31."""
    network = EfficientNetBN("efficientnet-b0", False, spatial_dims=2, in_channels=3)
    assert default_layer(trace_layers(network, (3, 224, 224))).receptive_field.start == (31.0, 31.0)


def formula(*layers: tuple[int, int, int]) -> tuple[float, float]:
    """Start and jump behind layers of (kernel, stride, padding), by Araujo et al. 2019."""
    start, jump = 0.0, 1
    for kernel, stride, padding in layers:
        start += ((kernel - 1) / 2 - padding) * jump
        jump *= stride
    return start, jump


@pytest.mark.parametrize("dims", [2, 3])
def test_densenet_by_the_formula(dims: int) -> None:
    field = default_layer(trace_layers(DenseNet121(dims, 1, 2), (1, *(64,) * dims))).receptive_field
    start, jump = formula((7, 2, 3), (3, 2, 1), (2, 2, 0), (2, 2, 0), (2, 2, 0))
    assert (field.start, field.jump) == ((start,) * dims, (jump,) * dims)


@pytest.mark.parametrize("build", [resnet18, resnet50])
@pytest.mark.parametrize("dims", [2, 3])
def test_resnet_by_the_formula(build: Any, dims: int) -> None:
    network = build(spatial_dims=dims, n_input_channels=1, num_classes=2)
    field = default_layer(trace_layers(network, (1, *(64,) * dims))).receptive_field
    start, jump = formula((7, 1, 3), (3, 2, 1), (3, 2, 1), (3, 2, 1), (3, 2, 1))
    assert (field.start, field.jump) == ((start,) * dims, (jump,) * dims)


@pytest.mark.parametrize("size", [(32, 48), (16, 48), (32, 48, 16), (16, 32, 48)])
@pytest.mark.parametrize("token", [True, False])
def test_the_patches_of_a_transformer_are_followed(size: tuple[int, ...], token: bool) -> None:
    """Also where the image is one patch thick: an axis of one position is one of the grid's."""
    network = ViT(1, size, 16, 24, 48, 2, 3, classification=token, spatial_dims=len(size))
    found = trace(network, (1, *size))
    grid, n = tuple(length // 16 for length in size), len(size)
    field = ReceptiveField((16.0,) * n, (7.5,) * n, (16.0,) * n)
    assert all((layer.shape, layer.receptive_field) == (grid, field) for layer in found.layers)
    assert [layer.name for layer in found.layers if layer.layout.order is Order.MAPS] == [
        "patch_embedding.patch_embeddings"
    ]
    assert [layer.name for layer in found.layers if layer.before_attention] == ["blocks.0.norm1", "blocks.1.norm1"]
    layout = Layout(Order.TOKENS, grid, int(token))
    assert found.layers[-1].layout == layout
    assert found.attentions == (Attention(3, int(np.prod(grid)) + token, layout, field),) * 2


@pytest.mark.parametrize("size", [(64, 96), (64, 32, 96)])
def test_swin_transformers_are_followed_through_their_windows(size: tuple[int, ...]) -> None:
    """Windows that do not divide the maps are padded, shifted and cut again; merging takes 2 patches a side."""
    stages = {"depths": (2, 2, 2, 2), "num_heads": (3, 3, 3, 3)}
    network = build("swin", spatial_dims=len(size), window_size=3, feature_size=12, **stages)
    found = trace(network, (1, *size))
    blocks = {layer.name: layer for layer in found.layers if layer.name.endswith("norm2")}
    assert len(blocks) == 8
    for name, layer in blocks.items():
        jump = 2.0 ** int(name[len("swinViT.layers")])
        assert layer.layout.order is Order.CHANNELS_LAST
        assert layer.shape == tuple(length // jump for length in size)
        field = layer.receptive_field
        assert field == ReceptiveField((jump,) * len(size), ((jump - 1) / 2,) * len(size), (jump,) * len(size))
    assert [layer.name for layer in found.layers if layer.before_attention] == [
        f"swinViT.layers{stage}.0.blocks.{block}.norm1" for stage in (1, 2, 3, 4) for block in (0, 1)
    ]


@pytest.mark.parametrize("order", Order)
def test_layouts_take_maps_out_and_put_them_back(order: Order) -> None:
    torch.manual_seed(0)
    shape = {Order.MAPS: (2, 5, 3, 4), Order.CHANNELS_LAST: (2, 3, 4, 5), Order.TOKENS: (2, 2 + 12 + 1, 5)}[order]
    output, layout = torch.rand(shape), Layout(order, (3, 4), 2 if order is Order.TOKENS else 0)
    maps = layout.maps(output)
    assert maps.shape == (2, 5, 3, 4)
    assert torch.equal(layout.output(maps, output), output)
    if order is Order.TOKENS:
        assert torch.equal(maps[1, :, 2, 1], output[1, 2 + 2 * 4 + 1])


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear"])
@pytest.mark.parametrize("size", [(12, 60), (90, 30), (27, 40), (100, 63)])
def test_interpolation_to_any_size_keeps_the_mean_centre(mode: str, size: tuple[int, int]) -> None:
    net = Functional(lambda x: F.interpolate(x, size=size, mode=mode))
    net.first = nn.Identity()
    field, _ = last_field(net, (1, 36, 45))
    assert field.followed
    for axis, n in enumerate((36, 45)):
        ramp = torch.arange(float(n)).reshape([-1, 1] if axis == 0 else [1, -1]).expand(1, 1, 36, 45)
        seen = net(ramp)[0, 0].numpy().mean(1 - axis)
        difference = field.start[axis] + field.jump[axis] * np.arange(size[axis]) - seen
        assert abs(difference.mean()) < 1e-4
        assert abs(difference).max() < 1


def test_axes_of_one_cell_are_followed() -> None:
    """As in thin slabs; a normalisation reshapes its input."""
    net = nn.Sequential(nn.Conv3d(1, 2, 3, (4, 2, 2), 1), nn.InstanceNorm3d(2, affine=True), nn.Conv3d(2, 2, 1))
    fields = [layer.receptive_field for layer in trace_layers(net, (1, 4, 16, 16))]
    assert all(field == ReceptiveField((4.0, 2.0, 2.0), (0.0, 0.0, 0.0), (3.0, 3.0, 3.0)) for field in fields)


def test_upsampling_network_ends_where_it_began() -> None:
    field = trace_layers(UNet(3, 1, 2, (4, 8), (2,)), (1, 16, 16, 16))[-1].receptive_field
    assert field.jump == (1.0, 1.0, 1.0)
    np.testing.assert_allclose(field.start, 0, atol=0.5)


def test_what_cannot_be_followed_is_said() -> None:
    net = nn.Sequential(Functional(lambda x: x.roll(1, 2)))
    field = trace_layers(net, (1, 32, 32))[-1].receptive_field
    assert not field.followed
    assert field.start == (0.5, 0.5)


class ReadsValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x / max(1.0, x.max().item()))


def test_networks_that_read_values_are_followed_on_real_data() -> None:
    assert trace_layers(ReadsValues(), (1, 16, 16))[0].receptive_field.jump == (2.0, 2.0)


OTHER_ORDERS: dict[str, Any] = {
    "transposed": lambda x: x.transpose(2, 3),
    "attention over tokens": lambda x: x.flatten(2).unflatten(1, (2, 2)).transpose(2, 3),
    "rows as batch": lambda x: x.permute(2, 1, 0, 3),
}


@pytest.mark.parametrize("name", OTHER_ORDERS)
def test_maps_in_another_order_are_no_layers(name: str) -> None:
    steps = OTHER_ORDERS[name]
    net = Functional(lambda x: steps(torch.cat([x, x], 1)), name)
    assert [layer.name for layer in trace_layers(nn.Sequential(net), (1, 32, 48))] == ["0.first"]


class Remembers(nn.Module):
    """Stores tensors in itself in every way but as registered parameters and buffers."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.conv = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3, 2, 1))
        self.register_buffer("late", None)
        self.grid: Tensor | None = None
        self.by_shape: dict[Any, Tensor] = {}
        self.seen: list[Tensor] = []
        self.fails = fails

    def forward(self, x: Tensor) -> Tensor:
        if self.grid is None:
            self.grid = torch.ones_like(x)
        self.late = self.by_shape.setdefault(x.shape, self.grid)
        self.seen.append(x)
        self.new = x
        if self.fails:
            raise AssertionError
        return self.conv(x * self.grid + self.late)


@pytest.mark.parametrize("fails", [False, True])
def test_what_modules_store_is_as_before(fails: bool) -> None:
    """A grid without data would make every later run fail."""
    network = Remembers(fails=fails)
    try:
        trace_layers(network, (1, 16, 16))
    except ModelError as error:
        assert fails
        assert "AssertionError" in str(error)  # noqa: PT017  # only one of the networks fails
    assert network.grid is None
    assert network.late is None
    assert network.by_shape == {}
    assert network.seen == []
    assert not hasattr(network, "new")
    network.fails = False
    assert network(torch.ones(1, 1, 16, 16)).device.type == "cpu"


class KeepsConstant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(1, 1, 16, 16)
        self.conv = nn.Conv2d(1, 2, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x * self.scale)


def test_constants_that_are_no_buffers_are_allowed() -> None:
    assert trace_layers(KeepsConstant(), (1, 16, 16))[0].receptive_field.start == (0.0, 0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_input_has_the_type_of_the_weights(dtype: torch.dtype) -> None:
    seen = []
    network = nn.Sequential(nn.Conv2d(1, 2, 3, 2)).to(dtype)
    with network[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype)):
        trace_layers(network, (1, 16, 16))
    assert seen == [dtype]


def test_the_last_use_of_a_layer_counts() -> None:
    conv = nn.Conv2d(1, 1, 3, 2, 1)
    (layer,) = trace_layers(nn.Sequential(conv, conv), (1, 16, 16))
    assert (layer.shape, layer.receptive_field.jump) == ((4, 4), (4.0, 4.0))


class Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        self.bn(x)
        torch.rand(3)
        raise RuntimeError("no such luck")


@pytest.mark.parametrize("network", [DenseNet121(2, 1, 2), ReadsValues(), Fails()], ids=["meta", "real", "fails"])
def test_the_network_is_left_as_it_came(network: nn.Module) -> None:
    network.train()
    next(network.children()).eval()
    modes = [m.training for m in network.modules()]
    state = {k: v.clone() for k, v in network.state_dict().items()}
    random = torch.get_rng_state()
    try:
        trace_layers(network, (1, 64, 64))
    except ModelError as error:
        assert "no such luck" in str(error)  # noqa: PT017  # only one of the networks fails
    assert [m.training for m in network.modules()] == modes
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())
    assert all(p.requires_grad for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_a_network_without_spatial_convolutions_has_no_default_layer() -> None:
    with pytest.raises(ModelError, match="choose a layer by name"):
        default_layer(trace_layers(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), (1, 4, 4)))


def test_a_wrong_input_shape_is_one_sentence() -> None:
    with pytest.raises(ModelError, match="does not take an input of shape"):
        trace_layers(nn.Sequential(nn.Conv2d(3, 1, 3)), (1, 16, 16))

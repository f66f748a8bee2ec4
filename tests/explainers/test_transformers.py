from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported_networks import export, load
from helpers import MeanOf, classifier_of, maps_of, ones
from monai.networks.nets import ViT
from torch import Tensor, nn

from napari_xai_med import Image, explain
from napari_xai_med.errors import Cancelled, InputError, ModelError
from napari_xai_med.explainers.base import Explainer, explainers, reason_against
from napari_xai_med.explainers.cam import GradCAM
from napari_xai_med.explainers.transformers import AttentionRollout, GradientRollout, TokenGradCAM
from napari_xai_med.job import Job
from napari_xai_med.models.architectures import build
from napari_xai_med.models.formats.onnx import Onnx

METHODS: list[Explainer] = [AttentionRollout(), GradientRollout(), TokenGradCAM()]
SIZES = {"2d": (24, 32), "3d": (16, 24, 8)}


class Transformer(nn.Module):
    """MONAI's ViT with sharper attention than at its start, answering from the class token or the patches' mean."""

    def __init__(self, size: tuple[int, ...], *, token: bool = True, fused: bool = False) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.body = ViT(
            1, size, 8, 24, 48, 3, 3, spatial_dims=len(size), classification=token, num_classes=3,
            post_activation="none", save_attn=not fused,
        )  # fmt: skip
        self.head = nn.Identity() if token else nn.Linear(24, 3)
        self.token = token
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(torch.randn(parameter.shape) * 0.15)
        for block in self.body.blocks:
            block.attn.use_flash_attention = fused

    def forward(self, x: Tensor) -> Tensor:
        output = self.body(x)[0]
        return output if self.token else self.head(output.mean(1))


def asked(size: tuple[int, ...], **options: Any) -> tuple[Any, Tensor]:
    network = Transformer(size, **options).double()
    return classifier_of(network, len(size), 3), torch.rand(2, 1, *size, dtype=torch.double)


@pytest.fixture(params=[(name, token) for name in SIZES for token in (True, False)], ids=str)
def case(request: pytest.FixtureRequest) -> tuple[Any, Tensor, tuple[int, ...], bool]:
    name, token = request.param
    grid = tuple(n // 8 for n in SIZES[name])
    return *asked(SIZES[name], token=token), grid, token


def row_of(matrix: Tensor, token: bool) -> Tensor:
    return matrix[0, 1:] if token else matrix.mean(0)


def test_rollout_equals_the_paper(case: Any) -> None:
    """Abnar and Zuidema 2020, section 3: A = 0.5 W + 0.5 I, the product over the blocks; MONAI keeps W itself."""
    classifier, inputs, grid, token = case
    (ours, second), _ = maps_of(AttentionRollout(), classifier, inputs, [(0, 1), (1, None)])
    classifier.network(inputs)
    for raw, row in ((ours, 0), (second, 1)):
        rolled = None
        for block in classifier.network.body.blocks:
            weights = 0.5 * block.attn.att_mat[row].mean(0) + 0.5 * torch.eye(block.attn.att_mat.shape[-1])
            rolled = weights if rolled is None else weights @ rolled
        expected = row_of(rolled, token).reshape(grid)
        np.testing.assert_allclose(raw.values, expected, rtol=1e-5)
    assert ours.values.std() > 0.01 * ours.values.mean()
    np.testing.assert_array_equal(np.diag(ours.to_input), [8] * len(grid) + [1])
    assert (ours.to_input[:-1, -1] == 3.5).all()


def test_gradient_rollout_equals_the_paper(case: Any) -> None:
    """Chefer et al. 2021, equations 5 and 6: A = E_h((gradient * attention)+), R = R + A R."""
    classifier, inputs, grid, token = case
    caught: list[Tensor] = []
    blocks = classifier.network.body.blocks
    handles = [b.attn.drop_weights.register_forward_hook(lambda _m, _i, out: caught.append(out)) for b in blocks]
    logits = classifier.network(inputs[:1])
    for handle in handles:
        handle.remove()
    for target in range(3):
        rolled = torch.eye(caught[0].shape[-1], dtype=torch.double)
        start = rolled
        for matrix in caught:
            (gradient,) = torch.autograd.grad(logits[0, target], matrix, retain_graph=True)
            rolled = rolled + (gradient * matrix)[0].clamp(min=0).mean(0) @ rolled
        expected = row_of(rolled - start, token).reshape(grid).detach()
        (ours,), _ = maps_of(GradientRollout(), classifier, inputs[:1], [(0, target)])
        assert expected.max() > 0
        np.testing.assert_allclose(ours.values, expected, atol=1e-6 * float(expected.max()), rtol=1e-5)


def test_token_gradcam_equals_a_hook_on_the_last_norm_before_attention(case: Any) -> None:
    classifier, inputs, grid, token = case
    caught: list[Tensor] = []
    layer = classifier.network.body.blocks[-1].norm1
    handle = layer.register_forward_hook(lambda _m, _i, out: caught.append(out))
    logits = classifier.network(inputs[:1])
    handle.remove()
    for target in range(3):
        (gradient,) = torch.autograd.grad(logits[0, target], caught[0], retain_graph=True)
        patches = slice(1, None) if token else slice(None)
        weights = gradient[0, patches].mean(0)
        expected = (caught[0][0, patches] @ weights).relu().reshape(grid).detach()
        (ours,), _ = maps_of(TokenGradCAM(), classifier, inputs[:1], [(0, target)])
        np.testing.assert_allclose(ours.values, expected, atol=1e-6 * float(expected.max() + 1e-9), rtol=1e-5)
        assert ours.facts["layer"] == "body.blocks.2.norm1"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_batch_of_mixed_classes_equals_single_images(method: Explainer, case: Any) -> None:
    classifier, inputs, *_ = case
    targets: list[tuple[int, int | None]] = [(0, 1), (1, 0), (0, 2), (1, None)]
    together, answer = maps_of(method, classifier, inputs, targets)
    for (row, target), ours in zip(targets, together, strict=True):
        (alone,), single = maps_of(method, classifier, inputs[row : row + 1], [(0, target)])
        np.testing.assert_allclose(ours.values, alone.values, atol=1e-5 * max(float(alone.values.max()), 1e-12))
        torch.testing.assert_close(single.logits[0], answer.logits[row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", [AttentionRollout(), GradientRollout()], ids=lambda method: method.name)
def test_uniform_attention_gives_a_uniform_map(method: Explainer) -> None:
    """Queries of zero attend to all alike. For rollout, (U + I) / 2 with U = 1/T gives (1 - 2^-blocks) / T."""
    classifier, inputs = asked(SIZES["2d"])
    for block in classifier.network.body.blocks:
        block.attn.qkv.weight.data[:24] = 0
    (raw,), _ = maps_of(method, classifier, inputs[:1], [(0, 1)])
    if method.name == "attention_rollout":
        np.testing.assert_allclose(raw.values, (1 - 2**-3) / (3 * 4 + 1), rtol=1e-6)
    else:
        # A block's gradient differs from token to token by their values only; make these alike, too.
        for block in classifier.network.body.blocks:
            block.attn.qkv.weight.data[48:] = 0
        (raw,), _ = maps_of(method, classifier, inputs[:1], [(0, 1)])
        np.testing.assert_allclose(raw.values, raw.values.flat[0], atol=1e-12)


class OneLook(nn.Module):
    """Class 1 is a patch's brightness, weighed by an attention that a constant gives: all by hand."""

    def __init__(self, attention: Tensor) -> None:
        super().__init__()
        self.patches = ones(nn.Conv2d(1, 1, 4, 4))
        self.scores = nn.Buffer(attention.log())

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        # The scores take part in the geometry of the tokens.
        scores = self.scores + 0 * tokens @ tokens.transpose(1, 2)
        seen = scores[:, None].softmax(-1) @ tokens[:, None]
        logit = seen.mean((1, 2, 3))
        return torch.stack([-logit, logit], 1)


def test_one_attention_by_hand() -> None:
    """Rollout is the mean over patches of (W + I) / 2; of the gradient's it is W_ij v_j / T, and their mean over i."""
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], [0.7, 0.1, 0.1, 0.1], [0.25] * 4])
    classifier = classifier_of(OneLook(weights), 2)
    x = torch.rand(1, 1, 8, 8)
    values = nn.functional.avg_pool2d(x, 4).flatten()
    (rolled,), _ = maps_of(AttentionRollout(), classifier, x, [(0, 1)])
    np.testing.assert_allclose(rolled.values.ravel(), ((weights + torch.eye(4)) / 2).mean(0), rtol=1e-5)
    (with_gradient, against), _ = maps_of(GradientRollout(), classifier, x, [(0, 1), (0, 0)])
    np.testing.assert_allclose(with_gradient.values.ravel(), weights.mean(0) * values / 4, rtol=1e-5)
    assert not against.values.any(), "all that attention brings speaks for class 1"


class Encoder(nn.Module):
    """PyTorch's own transformer, whose attention is fused."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.patches, self.head = nn.Conv2d(1, 16, 8, 8), nn.Linear(16, 3)
        self.body = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("kind", ["scaled_dot_product", "multi_head"])
def test_fused_attention_gives_the_same_as_its_steps(method: Explainer, kind: str) -> None:
    x = torch.rand(1, 1, *SIZES["2d"], dtype=torch.double)
    if kind == "scaled_dot_product":
        plain, fused = Transformer(SIZES["2d"]).double(), Transformer(SIZES["2d"], fused=True).double()
    else:
        fused = Encoder().double()
        plain = Steps(fused)
    (ours,), answer = maps_of(method, classifier_of(fused, 2, 3), x, [(0, 1)])
    (steps,), _ = maps_of(method, classifier_of(plain, 2, 3), x, [(0, 1)])
    np.testing.assert_allclose(ours.values, steps.values, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(answer.logits, fused.eval()(x))


class Steps(nn.Module):
    """What `Encoder` does, written out."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        # Named as normalisations before the attentions, of which PyTorch's default order has none in the first block.
        self.layers = encoder.body.layers

    def forward(self, x: Tensor) -> Tensor:
        y = self.encoder.patches(x).flatten(2).transpose(1, 2)
        for layer in self.layers:
            own = layer.self_attn
            q, k, v = (
                part.unflatten(2, (2, 8)).transpose(1, 2)
                for part in nn.functional.linear(y, own.in_proj_weight, own.in_proj_bias).chunk(3, 2)
            )
            seen = (q @ k.transpose(2, 3) / 8**0.5).softmax(-1) @ v
            y = layer.norm1(y + own.out_proj(seen.transpose(1, 2).flatten(2)))
            y = layer.norm2(y + layer.linear2(layer.linear1(y).relu()))
        return self.encoder.head(y.mean(1))


def exported(network: nn.Module, folder: Path, x: Tensor) -> Any:
    return load(export(network, folder / "vit.pt2", tuple(x.shape)))


def in_onnx(network: nn.Module, folder: Path, x: Tensor) -> Any:
    pytest.importorskip("onnx", reason="ONNX files are made and read with it")
    pytest.importorskip("onnxruntime", reason="ONNX files are run with it")
    torch.onnx.export(network, (x,), folder / "vit.onnx", dynamo=False, verbose=False)
    return Onnx().load(folder / "vit.onnx", nn.Identity)


# The exporter that made most of the files that there are is deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("as_file", [exported, in_onnx])
def test_exported_networks_are_seen_through_as_well(as_file: Any, fused: bool, tmp_path: Path) -> None:
    network = Transformer(SIZES["2d"], fused=fused).eval()
    x = torch.rand(1, 1, *SIZES["2d"])
    program = classifier_of(as_file(network, tmp_path, x), 2, 3)
    for method in METHODS:
        (theirs,), _ = maps_of(method, program, x, [(0, 1)])
        (ours,), _ = maps_of(method, classifier_of(network, 2, 3), x, [(0, 1)])
        np.testing.assert_allclose(theirs.values, ours.values, rtol=1e-4, atol=1e-5 * float(ours.values.max()))
        np.testing.assert_allclose(theirs.to_input, ours.to_input)


@pytest.mark.parametrize("dims", [2, 3])
def test_swin_has_token_gradcam_on_its_grid_and_no_rollout(dims: int) -> None:
    torch.manual_seed(0)
    stages = {"depths": (2, 2, 2, 2), "num_heads": (3, 3, 3, 3)}
    network = build("swin", spatial_dims=dims, window_size=3, feature_size=12, **stages)
    classifier, size = classifier_of(network, dims), (64, 96, 64)[:dims]
    x = torch.rand(1, 1, *size)
    caught: list[Tensor] = []
    layer = network.swinViT.layers4[0].blocks[-1].norm1
    handle = layer.register_forward_hook(lambda _m, _i, out: caught.append(out))
    logits = network(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[0, 1], caught[0])
    expected = (caught[0] * gradient.flatten(1, -2).mean(1)).sum(-1).relu()[0].detach()
    (raw,), _ = maps_of(TokenGradCAM(), classifier, x, [(0, 1)])
    assert raw.values.shape == tuple(n // 16 for n in size)
    np.testing.assert_allclose(raw.values, expected, rtol=1e-4, atol=1e-5 * float(expected.max()))
    for method in (AttentionRollout, GradientRollout):
        with pytest.raises(ModelError, match=r"such as those of a window, attend\. Choose another"):
            maps_of(method(), classifier, x, [(0, 1)])
        assert "such as those of a window" in reason_against(method, classifier)
    assert reason_against(TokenGradCAM, classifier) == ""


def test_gradcam_at_a_layer_of_tokens_is_token_gradcam() -> None:
    classifier, inputs = asked(SIZES["2d"])
    name = "body.blocks.0.norm2"
    pairs = (maps_of(method(layers=(name,)), classifier, inputs, [(1, 2)]) for method in (GradCAM, TokenGradCAM))
    (one, _), (two, _) = pairs
    np.testing.assert_array_equal(one[0].values, two[0].values)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_networks_without_tokens_are_told(method: Explainer) -> None:
    classifier = classifier_of(MeanOf(ones(nn.Conv2d(1, 1, 3))), 2)
    assert reason_against(type(method), classifier) == "", "nothing is known of it yet"
    with pytest.raises(ModelError, match=r"and test has none\. Choose "):
        maps_of(method, classifier, torch.rand(1, 1, 8, 8), [(0, 1)])
    assert reason_against(type(method), classifier).endswith("and test has none.")
    assert reason_against(GradCAM, classifier) == ""


def test_wrong_choices_are_sentences() -> None:
    classifier, inputs = asked(SIZES["2d"], token=False)
    with pytest.raises(InputError, match="no class token; choose the mean"):
        maps_of(AttentionRollout(tokens="class"), classifier, inputs, [(0, 1)])
    with pytest.raises(InputError, match=r"gives no tokens; .* such as body\.blocks\.0\.norm1"):
        maps_of(TokenGradCAM(layers=("body.patch_embedding.patch_embeddings",)), classifier, inputs, [(0, 1)])


def test_attention_of_the_patches_can_be_asked_for() -> None:
    classifier, inputs = asked(SIZES["2d"])
    (raw,), _ = maps_of(AttentionRollout(tokens="patches"), classifier, inputs[:1], [(0, 1)])
    assert raw.facts["attention_of"] == "patches"
    # All rows of a rollout sum to 1, and the class token takes a part of each.
    assert 0 < float(raw.values.sum()) < 1


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_the_network_is_left_as_it_came_also_when_stopped(method: Explainer) -> None:
    classifier, inputs = asked(SIZES["2d"])
    network = classifier.network.train()
    modes = [module.training for module in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    random = torch.get_rng_state()

    class Token:
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 10

    maps_of(method, classifier, inputs[:1], [(0, 1)])
    with pytest.raises(Cancelled):
        maps_of(method, classifier, inputs[:1], [(0, 1)], Job(cancel=Token()))
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize("name", ["attention_rollout", "gradient_rollout", "token_gradcam"])
def test_in_a_script_the_map_lies_on_the_image_and_the_record_tells(name: str) -> None:
    torch.manual_seed(0)
    network = build("vit", spatial_dims=3, image_size=(32, 32, 32), patch_size=8, hidden_size=24, num_heads=3)
    image = Image.from_array(np.random.default_rng(0).random((32, 32, 32)))
    attribution = explain(image, classifier_of(network, 3), name, target=1)
    assert attribution.values.shape == (32, 32, 32)
    assert attribution.raw.shape == (4, 4, 4)
    method = attribution.record.method
    assert method["first_cell"] == [3.5] * 3
    assert ("caution" in method) is (name == "attention_rollout")
    assert name in explainers()

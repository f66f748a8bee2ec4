"""MONAI's classification networks in 2D and 3D, without pretrained weights.

The parameters have MONAI's own names, so that state dicts of these networks load. Of the Swin kind MONAI has only
the encoder of its segmentation network; the head behind it is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from monai.networks import nets
from monai.networks.nets.swin_unetr import SwinTransformer
from torch import Tensor, nn

from napari_xai_med.models.architectures import SpatialOptions, architecture, count
from napari_xai_med.options import option

_SIZES = {2: (224, 224), 3: (96, 96, 96)}
_DENSENET = "Huang et al. 2017, doi:10.1109/CVPR.2017.243"
_RESNET = "He et al. 2016, doi:10.1109/CVPR.2016.90"
_SENET = "Hu et al. 2018, doi:10.1109/CVPR.2018.00745"
_EFFICIENTNET = "Tan and Le 2019, arXiv:1905.11946"
_VIT = "Dosovitskiy et al. 2021, arXiv:2010.11929"
_SWIN = "Liu et al. 2021, arXiv:2103.14030"

# The side of the square images that each EfficientNet was made for, b0 first.
_EFFICIENTNET_SIDES = (224, 240, 260, 300, 380, 456, 528, 600, 672)


@dataclass(frozen=True, kw_only=True)
class DenseNetOptions(SpatialOptions):
    """Options of the DenseNets."""

    dropout_prob: float = option(0.0, "Share of values that training drops behind each dense layer.", limits=(0, 1))


@dataclass(frozen=True, kw_only=True)
class ResNetOptions(SpatialOptions):
    """Options of the ResNets; published weights differ in them."""

    conv1_t_stride: int = count(1, "Stride of the first convolution.")
    shortcut_type: str = option(
        "B", "How a shortcut changes its shape: A by pooling and zeros, B by a convolution.", choices=("A", "B")
    )
    bias_downsample: bool = option(True, "Whether the convolutions of shortcuts have a bias.")


@dataclass(frozen=True, kw_only=True)
class ViTOptions(SpatialOptions):
    """Options of the vision transformer. The defaults are those of ViT-B/16."""

    image_size: tuple[int, ...] = count((), "Spatial shape of the image; the default input's if empty.")
    patch_size: int = count(16, "Side of the patches that the image is cut into.")
    hidden_size: int = count(768, "Length of a token.")
    mlp_dim: int = count(3072, "Units in the hidden layer of each block.")
    num_layers: int = count(12, "Number of blocks.")
    num_heads: int = count(12, "Attention heads of each block; they divide hidden_size.")
    pos_embed_type: str = option(
        "learnable", "How a token knows its place.", choices=("learnable", "sincos", "fourier", "none")
    )


@dataclass(frozen=True, kw_only=True)
class SwinOptions(SpatialOptions):
    """Options of the Swin transformer. The defaults are those of MONAI's SwinUNETR with 48 features."""

    patch_size: int = count(2, "Side of the patches that the image is cut into.")
    window_size: int = count(7, "Patches on the side of a window, inside which they attend to each other.")
    feature_size: int = count(48, "Length of a token in the first stage.")
    depths: tuple[int, ...] = count((2, 2, 2, 2), "Number of blocks in each stage.")
    num_heads: tuple[int, ...] = count((3, 6, 12, 24), "Attention heads in each stage.")


def _densenet(network: Callable[..., nn.Module], *, num_classes: int, **options: Any) -> nn.Module:
    return network(out_channels=num_classes, pretrained=False, **options)


def _resnet(network: Callable[..., nn.Module], *, in_channels: int, **options: Any) -> nn.Module:
    return network(n_input_channels=in_channels, pretrained=False, **options)


def _plain(network: Callable[..., nn.Module], **options: Any) -> nn.Module:
    return network(pretrained=False, **options)


def _efficientnet(version: str, **options: Any) -> nn.Module:
    network: nn.Module = nets.EfficientNetBN(f"efficientnet-{version}", pretrained=False, **options)
    return network


def _register_families() -> None:
    """The networks that differ by a number only."""
    as_in_monai = partial(architecture, layout="as in MONAI")
    for depth in (121, 169, 201, 264):
        network = getattr(nets, f"DenseNet{depth}")
        entry = as_in_monai(
            f"densenet{depth}", f"DenseNet-{depth}", paper=_DENSENET, sizes=_SIZES, options=DenseNetOptions
        )
        entry(partial(_densenet, network))
    for depth in (10, 18, 34, 50, 101, 152, 200):
        network = getattr(nets, f"resnet{depth}")
        entry = as_in_monai(f"resnet{depth}", f"ResNet-{depth}", paper=_RESNET, sizes=_SIZES, options=ResNetOptions)
        entry(partial(_resnet, network))
    for name in ("SEResNet50", "SEResNet101", "SEResNet152", "SENet154", "SEResNext50", "SEResNext101"):
        title = name.replace("Net", "Net-").replace("Next", "NeXt-")
        entry = as_in_monai(name.lower(), title, paper=_SENET, sizes=_SIZES, options=SpatialOptions)
        entry(partial(_plain, getattr(nets, name)))
    for number, side in enumerate(_EFFICIENTNET_SIDES):
        sizes = {2: (side, side), 3: _SIZES[3]}
        title = f"EfficientNet-B{number}"
        entry = as_in_monai(f"efficientnet_b{number}", title, paper=_EFFICIENTNET, sizes=sizes, options=SpatialOptions)
        entry(partial(_efficientnet, f"b{number}"))


_register_families()


class VisionTransformer(nets.ViT):
    """MONAI's ViT with a linear head, giving logits only.

    MONAI's own returns a tuple, and ends in tanh unless told otherwise. Weights trained with that tanh have the
    key ``classification_head.0.weight``, and do not load here: their logits would be other ones.
    """

    def __init__(self, *, image_size: tuple[int, ...], **options: Any) -> None:
        super().__init__(img_size=image_size, classification=True, post_activation="none", **options)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (N, num_classes), of images, shape (N, C, *spatial)."""
        logits: Tensor = super().forward(x)[0]
        return logits


@architecture("vit", "ViT", paper=_VIT, layout="as in MONAI", sizes=_SIZES, options=ViTOptions)
def _vit(**options: Any) -> nn.Module:
    return VisionTransformer(**options)


@architecture(
    "swin", "Swin transformer", paper=_SWIN, layout="MONAI's encoder, our head", sizes=_SIZES, options=SwinOptions
)
class SwinClassifier(nn.Module):
    """The encoder of MONAI's SwinUNETR, the mean over space of its last feature maps, and a linear layer.

    Parameters
    ----------
    **options
        See `SwinOptions`. The encoder has the name that it has in SwinUNETR, whose weights fit it.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        spatial_dims: int,
        patch_size: int,
        window_size: int,
        feature_size: int,
        depths: tuple[int, ...],
        num_heads: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.swinViT = SwinTransformer(
            in_chans=in_channels,
            embed_dim=feature_size,
            window_size=(window_size,) * spatial_dims,
            patch_size=(patch_size,) * spatial_dims,
            depths=depths,
            num_heads=num_heads,
            spatial_dims=spatial_dims,
        )
        self.head = nn.Linear(feature_size * 2 ** len(depths), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (N, num_classes), of images, shape (N, C, *spatial)."""
        maps = self.swinViT(x)[-1]
        logits: Tensor = self.head(maps.flatten(2).mean(2))
        return logits

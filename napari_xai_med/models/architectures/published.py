"""Networks of published works that explain medical classifiers, rebuilt from Keras in PyTorch.

What Keras does otherwise than PyTorch is kept, so that weights from Keras give the same answers: convolutions are
``valid`` unless said otherwise, ``same`` pooling keeps an incomplete window at the end, BatchNorm adds 1e-3 to
the variance, and Flatten puts channels last. Every network here leaves the sigmoid or softmax out.

Not every work says how its layers are laid out. Each class says what is known of it and what is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from napari_xai_med.models.architectures import Options, architecture, count
from napari_xai_med.options import option

_UNKNOWN = "not identified"


@dataclass(frozen=True, kw_only=True)
class FlattenOptions(Options):
    """Options of a network whose dense layers see each position of the feature maps."""

    image_size: tuple[int, ...] = count((), "Spatial shape of the image; the default input's if empty.")
    channels_last: bool = option(True, "Whether Flatten orders values as Keras does; PyTorch has channels first.")


@dataclass(frozen=True, kw_only=True)
class LayoutOptions(FlattenOptions):
    """Options of a network whose layout is assumed, so that the true one can be given where it is known."""

    filters: tuple[int, ...] = count((32, 64, 128), "Feature maps of each convolution.")
    units: tuple[int, ...] = count((128,), "Units of each dense layer before the last.")


class Flatten(nn.Module):
    """Feature maps to one row of numbers.

    Parameters
    ----------
    channels_last : bool
        Order the values by position and then by channel, as Keras does, or the other way round.
    """

    def __init__(self, channels_last: bool = True) -> None:
        super().__init__()
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> Tensor:
        """Rows, shape (N, C * positions), of maps, shape (N, C, *spatial)."""
        return (x.movedim(1, -1) if self.channels_last else x).flatten(1)


class KerasCNN(nn.Module):
    """Blocks of 3x3 convolutions with ReLU and max pooling, Flatten, dense layers with ReLU, and a linear one.

    Parameters
    ----------
    in_channels, num_classes : int
    image_size : sequence of int
    blocks : sequence of sequence of int
        Filters of the convolutions of each block; a pooling by 2 follows each block.
    units : sequence of int
        Of the dense layers before the last.
    same : bool
        Keras' padding of convolutions and poolings, ``same`` or ``valid``.
    pool : bool
        False leaves the poolings out.
    channels_last : bool
        See `Flatten`.

    Raises
    ------
    ValueError
        If the image is too small.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        image_size: Sequence[int],
        blocks: Sequence[Sequence[int]],
        units: Sequence[int],
        *,
        same: bool = False,
        pool: bool = True,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        size, channels = list(image_size), in_channels
        for filters in blocks:
            for wanted in filters:
                layers += [nn.Conv2d(channels, wanted, 3, padding=1 if same else 0), nn.ReLU()]
                channels = wanted
                size = size if same else [n - 2 for n in size]
            if pool:
                layers.append(nn.MaxPool2d(2, ceil_mode=same))
                size = [-(-n // 2) if same else n // 2 for n in size]
        if min(size) < 1:
            raise ValueError(f"an image of {'x'.join(map(str, image_size))} is too small for its poolings")
        self.features = nn.Sequential(*layers)
        self.flatten = Flatten(channels_last)
        self.classifier = dense((channels * prod(size), *units), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (N, num_classes), of images, shape (N, C, Y, X)."""
        logits: Tensor = self.classifier(self.flatten(self.features(x)))
        return logits


def dense(sizes: Sequence[int], num_classes: int, dropouts: Sequence[float] = ()) -> nn.Sequential:
    """Dense layers with ReLU and dropout, and a linear one; the first of `sizes` is the input's."""
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(pairwise(sizes)):
        layers += [nn.Linear(before, after), nn.ReLU()]
        if dropouts:
            layers.append(nn.Dropout(dropouts[index]))
    return nn.Sequential(*layers, nn.Linear(sizes[-1], num_classes))


@architecture(
    "ct_cnn_17",
    "17-layer 3D CNN for chest CT",
    paper="Zunair et al. 2020, arXiv:2007.13224",
    layout="published",
    sizes={3: (128, 128, 64)},
    num_classes=1,
)
class ChestCT3D(nn.Sequential):
    """The 17-layer 3D CNN for chest CT: 1,352,897 parameters as Keras counts them.

    Four times a ``valid`` 3x3x3 convolution with ReLU, max pooling by 2 and BatchNorm, with 64, 64, 128 and 256
    filters; global average pooling, 512 units, dropout of 0.3, and one logit. Established: the layout and the
    number of parameters of each layer are those that Keras' own example of this paper prints. There the axes of
    the 128 x 128 x 64 image are width, height, depth.

    References
    ----------
    Zunair et al. 2020, Uniformizing techniques to process CT scans with 3D CNNs for tuberculosis prediction,
    arXiv:2007.13224; https://keras.io/examples/vision/3D_image_classification.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 1) -> None:
        layers: list[nn.Module] = []
        for before, after in zip((in_channels, 64, 64, 128), (64, 64, 128, 256), strict=True):
            layers += [nn.Conv3d(before, after, 3), nn.ReLU(), nn.MaxPool3d(2), _batch_norm(nn.BatchNorm3d, after)]
        layers += [nn.AdaptiveAvgPool3d(1), nn.Flatten()]
        super().__init__(*layers, *dense((256, 512), num_classes, (0.3,)))


def _batch_norm(kind: type[nn.BatchNorm2d] | type[nn.BatchNorm3d], channels: int) -> nn.Module:
    # Keras' momentum of 0.99 is how much is kept, PyTorch's is how much is replaced.
    return kind(channels, eps=1e-3, momentum=0.01)


class SeparableConv(nn.Sequential):
    """Keras' ``SeparableConv2D`` of 3x3 with ``same`` padding: each channel by itself, and then their mixture.

    Parameters
    ----------
    before, after : int
        Channels.
    """

    def __init__(self, before: int, after: int) -> None:
        # Keras has one bias, behind the mixture.
        depthwise = nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False)
        super().__init__(depthwise, nn.Conv2d(before, after, 1))


@architecture(
    "pneumonia_separable",
    "VGG16-like separable CNN for pneumonia",
    paper="Kaggle kernel “Beating everything with Depthwise Convolution”",
    layout="published",
    sizes={2: (224, 224)},
    options=FlattenOptions,
    in_channels=3,
)
class SeparablePneumonia(nn.Module):
    """The VGG16-like network of separable convolutions for pneumonia in chest radiographs.

    Two convolutions of 64, two separable ones of 128, three of 256 and three of 512 filters, all ``same`` with
    ReLU, with max pooling by 2 behind each group; BatchNorm behind the first two of the last two groups; dense
    layers of 1024 and 512 units with dropout of 0.7 and 0.5, and two logits. Established: several public
    repositories hold this same layout.

    References
    ----------
    "Beating everything with Depthwise Convolution", a Kaggle kernel on the chest radiographs of Kermany et al.
    2018, doi:10.1016/j.cell.2018.02.010.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 2,
        image_size: Sequence[int] = (224, 224),
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        size = [n // 16 for n in image_size]
        if min(size) < 1:
            raise ValueError(f"an image of {'x'.join(map(str, image_size))} is too small for its poolings")
        first = [nn.Conv2d(in_channels, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
        layers: list[nn.Module] = [*first, nn.MaxPool2d(2)]
        for before, after, depth in ((64, 128, 2), (128, 256, 3), (256, 512, 3)):
            for index in range(depth):
                layers += [SeparableConv(after if index else before, after), nn.ReLU()]
                if depth == 3 and index < 2:
                    layers.append(_batch_norm(nn.BatchNorm2d, after))
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.flatten = Flatten(channels_last)
        self.classifier = dense((512 * prod(size), 1024, 512), num_classes, (0.7, 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (N, num_classes), of images, shape (N, C, Y, X)."""
        logits: Tensor = self.classifier(self.flatten(self.features(x)))
        return logits


@architecture(
    "brain_tumor_first",
    "Brain tumour CNN, first model",
    paper=_UNKNOWN,
    layout="fits the published count",
    sizes={2: (150, 150)},
    options=FlattenOptions,
    in_channels=3,
    num_classes=1,
)
class BrainTumorFirst(KerasCNN):
    """The first model for brain tumours in MRI: 720,897 parameters.

    One ``same`` convolution of 32 filters with ReLU, Flatten and one logit. The layout was not found in print;
    it is the plainest one that has exactly the published input, output and number of parameters.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1,
        image_size: Sequence[int] = (150, 150),
        channels_last: bool = True,
    ) -> None:
        settings = {"same": True, "pool": False, "channels_last": channels_last}
        super().__init__(in_channels, num_classes, image_size, ((32,),), (), **settings)


@architecture(
    "brain_tumor_final",
    "Brain tumour CNN, final model",
    paper=_UNKNOWN,
    layout="fits the published count",
    sizes={2: (150, 150)},
    options=FlattenOptions,
    in_channels=3,
    num_classes=1,
)
class BrainTumorFinal(KerasCNN):
    """The final model for brain tumours in MRI: 3,040,577 parameters.

    ``same`` convolutions of 32, 32, 32, 64 and 64 filters with ReLU, three ``same`` max poolings by 2, dense
    layers of 128 and 64 units, and one logit. The layout was not found in print. This is the plainest one found
    that has exactly the published input, output and number of parameters, and it goes on from the first model.
    The number does not tell behind which convolutions the poolings are: the first, third and fifth are assumed.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1,
        image_size: Sequence[int] = (150, 150),
        channels_last: bool = True,
    ) -> None:
        blocks = ((32,), (32, 32), (64, 64))
        settings = {"same": True, "channels_last": channels_last}
        super().__init__(in_channels, num_classes, image_size, blocks, (128, 64), **settings)


class AssumedCNN(KerasCNN):
    """A network whose layers' sizes are not known: ``valid`` convolutions with ReLU and max pooling, dense layers.

    Layout not published as far as could be found. Known are the inputs and outputs of these networks, and that the
    histopathology network has three convolutions and seven fully connected layers. The rest is the plainest guess:
    filters double, units halve, and the abdominal model B has one convolution more than A. To load weights of the
    true networks, give their `filters` and `units`.

    Parameters
    ----------
    in_channels, num_classes : int
    image_size : sequence of int
    filters : sequence of int
        Feature maps of each convolution.
    units : sequence of int
        Of the dense layers before the last.
    channels_last : bool
        See `Flatten`.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        image_size: Sequence[int],
        filters: Sequence[int],
        units: Sequence[int],
        channels_last: bool = True,
    ) -> None:
        blocks = [(wanted,) for wanted in filters]
        super().__init__(in_channels, num_classes, image_size, blocks, units, channels_last=channels_last)


_assumed = partial(architecture, paper=_UNKNOWN, layout="assumed", options=LayoutOptions)
_assumed(
    "histopathology_3_7",
    "Histopathology CNN, 3 convolutions and 7 dense layers",
    sizes={2: (256, 256)},
    in_channels=3,
    num_classes=7,
    units=(512, 256, 128, 64, 32, 16),
)(AssumedCNN)
_assumed("abdominal_lesion_a", "Abdominal lesion CNN, model A", sizes={2: (128, 128)}, num_classes=1, filters=(32, 64))(
    AssumedCNN
)
_assumed("abdominal_lesion_b", "Abdominal lesion CNN, model B", sizes={2: (128, 128)}, num_classes=1)(AssumedCNN)
_assumed("synthetic_anomaly", "Synthetic anomaly CNN", sizes={2: (256, 256)}, num_classes=1)(AssumedCNN)

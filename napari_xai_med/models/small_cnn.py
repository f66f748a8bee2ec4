"""The network of the embedded classifiers."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["SmallCNN"]


class SmallCNN(nn.Module):
    """Four convolutions of MONAI, global maximum pooling and one linear layer, in 2D or 3D.

    Each of MONAI's own small classifiers adds, flattens or normalises between its last convolution and the
    ReLU behind it, which blurs what Grad-CAM of that convolution shows. Here a ReLU follows at once, and the
    answer is made of the strongest finding of each kind, which may be small. The stride is 4; cell 0 lies at
    voxel 0.

    Parameters
    ----------
    spatial_dims : int
        2 or 3.
    in_channels : int
    num_classes : int
    channels : sequence of int
        Feature maps of each convolution; the first two have a stride of 2.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, num_classes: int, channels: tuple[int, ...] = (16, 32, 48, 64)
    ) -> None:
        from monai.networks.blocks import Convolution

        super().__init__()
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(zip((in_channels, *channels), channels, strict=False)):
            order = "AN" if index == len(channels) - 1 else "NA"
            stride = 2 if index < 2 else 1
            layers.append(Convolution(spatial_dims, before, after, stride, 3, order, "relu", "batch"))
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (N, num_classes), of images, shape (N, C, *spatial)."""
        logits: Tensor = self.head(self.features(x).flatten(2).amax(2))
        return logits

"""The backbone of the CPU defaults: 0.3 M parameters, made for images of 64 x 32 to 64 x 64."""

from __future__ import annotations

from torch import Tensor, nn

WIDTHS = (32, 64, 128)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a 1 x 1 shortcut, as in ResNet-18; halves height and width."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 1, stride=2, bias=False), nn.BatchNorm2d(channels_out)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


def small_backbone() -> nn.Sequential:
    """A stem and two residual blocks: [B, 3, H, W] to [B, 128, H / 8, W / 8]."""
    stem, middle, last = WIDTHS
    net = nn.Sequential(
        nn.Conv2d(3, stem, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(stem),
        nn.ReLU(inplace=True),
        ResidualBlock(stem, middle),
        ResidualBlock(middle, last),
    )
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net

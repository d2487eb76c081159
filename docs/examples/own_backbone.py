"""Train a network of your own: any module that gives [B, C, h, w], [B, N, C] or [B, C] for images [B, 3, H, W]."""

import sys

from torch import nn

from ise_fast.train import run


def tiny() -> nn.Module:
    """Called without arguments; the training program adds pooling, the BatchNorm neck and the unit length."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, stride=4, padding=2), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2)
    )


if __name__ == "__main__":
    # On the command line: ise-fast train --arch own_backbone:tiny
    words = "--arch own_backbone:tiny --preset synthetic --epochs 1 --iters 2 --no-report --eval-step 0"
    result = run([*words.split(), *sys.argv[1:]])
    print(result.epochs[["clusters", "outliers", "loss"]])

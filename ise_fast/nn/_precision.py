"""Computing in the precision of the numbers, whatever autocast says."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Autocast is off inside; meta, where nothing is computed, has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)

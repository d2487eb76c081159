from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize


@pytest.fixture
def blobs() -> torch.Tensor:
    """Eight tight groups of ten unit rows."""
    generator = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(8, 32, generator=generator), dim=1)
    return normalize(centres.repeat_interleave(10, 0) + 0.05 * torch.randn(80, 32, generator=generator), dim=1)

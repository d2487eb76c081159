"""pytest -p poison: what torch allocates is full of NaN, or of the largest integer: reads of what nobody wrote show.

On a GPU this finds what initcheck cannot: it takes results that the library stores in whole tiles for unwritten.
"""

import torch

torch.use_deterministic_algorithms(True, warn_only=True)  # what torch cannot do in one order it may do in any here
torch.utils.deterministic.fill_uninitialized_memory = True

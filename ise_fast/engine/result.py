"""What a finished run gives to Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TrainResult:
    """The figures of a finished run.

    Attributes:
        folder: of the run.
        summary: what metrics.json holds: the untrained network, the best and the last epoch.
        history: one record for each epoch, as in metrics.jsonl; epoch 0 is the untrained network.
    """

    folder: Path
    summary: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]

    @property
    def epochs(self) -> Any:
        """The history as a pandas DataFrame, by epoch; the seconds of a stage are the column seconds.STAGE.

        Raises:
            ImportError: without pandas.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError("epochs: needs pandas (pip install pandas); history has the same records") from None
        return pandas.json_normalize([dict(record) for record in self.history]).set_index("epoch")

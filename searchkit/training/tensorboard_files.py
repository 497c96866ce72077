"""What a run tells TensorBoard, where that is installed: scalars, and the sheet of each validation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class TensorBoardFiles:
    """Event files in a folder; every call does nothing where TensorBoard is not installed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first_step: int | None = None
        self._writer: Any = None
        self._tried = False

    def forget_behind(self, total_step: int) -> None:
        """Have TensorBoard drop what an earlier process told it of later steps; call it before anything is added."""
        self._first_step = total_step + 1

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        """One point of each curve."""
        writer = self._opened()
        for name, value in values.items() if writer is not None else ():
            writer.add_scalar(name, value, step)

    def add_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """An RGB picture, H x W x 3, uint8."""
        writer = self._opened()
        if writer is not None:
            writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()

    def _opened(self) -> Any:
        """TensorBoard's writer, or None; made late, when it is known from which step on it writes."""
        if not self._tried:
            self._tried = True
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return None
            self._writer = SummaryWriter(str(self._path), purge_step=self._first_step)
        return self._writer

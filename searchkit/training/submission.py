"""Predictions as the Cityscapes server takes them.

One PNG a picture, at the picture's own size, with the official ids (0 to 33) and not the trainIds. The server, like
cityscapesScripts' `getPrediction`, finds the file by `<city>_<sequence>_<frame>*.png` anywhere under the folder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..data.cityscapes import TRAIN_IDS
from ..errors import UsageError
from ..label_sets import CITYSCAPES_19, LabelSet
from ..pictures import write_picture

SUFFIX = "_pred_labelIds.png"


class Submission:
    """A folder that predictions are written into, one after the other.

    Args:
        folder: created where it is missing; must be empty.
        labels: the label set of the data set.

    Raises:
        UsageError: the label set is not that of Cityscapes, or the folder holds something.
    """

    def __init__(self, folder: Path, labels: LabelSet) -> None:
        if labels.names != CITYSCAPES_19.names:
            raise UsageError(
                "only Cityscapes' classes have official ids",
                where="--submission",
                got=labels.name,
                allowed=CITYSCAPES_19.name,
            )
        # A stale file would be scored too, or be found beside the new one, which the server refuses.
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError("not an empty folder", where=str(folder), fix="delete it, or name another one")
        self._folder = folder
        self._written: set[str] = set()

    def add(self, name: str, prediction: np.ndarray) -> Path:
        """Write the prediction (H x W, uint8, trainIds) of the sample called `name`; returns the file.

        Raises:
            UsageError: two samples have one file name.
        """
        file = file_name(name)
        if file in self._written:
            raise UsageError("two samples have one name", where="--submission", got=name)
        self._written.add(file)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_picture(self._folder / file, label_ids(prediction))
        return self._folder / file


def file_name(name: str) -> str:
    """The file of a sample: `frankfurt/frankfurt_000000_000294` becomes `frankfurt_000000_000294_pred_labelIds.png`."""
    return name.rsplit("/", 1)[-1].removesuffix("_leftImg8bit") + SUFFIX


def label_ids(train_ids: np.ndarray) -> np.ndarray:
    """trainIds (uint8) as official ids (uint8); raises `UsageError` for what is no trainId."""
    if train_ids.size and train_ids.max() >= len(TRAIN_IDS):
        raise UsageError("label out of range", where="prediction", got=int(train_ids.max()), allowed="0 to 18")
    table = np.zeros(256, np.uint8)
    table[list(TRAIN_IDS.values())] = list(TRAIN_IDS)
    return table[train_ids]

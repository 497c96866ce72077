"""Weights that come with searchkit: `NETWORK.DATASET.safetensors`, beside the record of how they were made.

They are small and made from generated pictures, so that a demo shows streets and a check of precision has a network
worth checking. They are no weights for a vehicle.
"""

from __future__ import annotations

from pathlib import Path

from .errors import unknown_name

SHIPPED = Path(__file__).parent / "shipped_weights"
_SUFFIX = ".safetensors"


def shipped_for(network: str) -> list[str]:
    """Names of the data sets that shipped weights of this network were trained on."""
    return sorted(path.name[len(network) + 1 : -len(_SUFFIX)] for path in SHIPPED.glob(f"{network}.*{_SUFFIX}"))


def find_weights(argument: str, network: str) -> Path:
    """The file that `--weights` means: a path, or the name of the data set of shipped weights.

    Raises:
        UsageError: neither a path nor the name of weights that come with searchkit for this network.
    """
    path = Path(argument)
    # A folder is no weights file, and a data set's folder may well have the data set's name.
    if argument.endswith(_SUFFIX) or len(path.parts) > 1 or path.is_file():
        return path
    if argument not in shipped_for(network):
        raise unknown_name(f"weights of {network}", argument, shipped_for(network), where="--weights")
    return SHIPPED / f"{network}.{argument}{_SUFFIX}"

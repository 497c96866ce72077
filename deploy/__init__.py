"""From an `nn.Module` to something a vehicle can load: export, proof, bundle, run.

`deploy.load(bundle)` is all that a program needs to run one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from .segmenter import Segmenter


def load(
    path: str | Path,
    *,
    device: str | None = None,
    threads: int | None = None,
    backend: str = "onnxruntime",
    mode: str | None = None,
    trust_engines: bool = False,
    labels_at: str = "model",
) -> Segmenter:
    """Open a bundle for inference: `segmenter(image)` gives its label map. See `deploy.segmenter.load`."""
    # Imported here, so that importing any part of this package does not import all of it.
    from . import segmenter

    return segmenter.load(
        path,
        device=device,
        threads=threads,
        backend=backend,
        mode=mode,
        trust_engines=trust_engines,
        labels_at=labels_at,
    )

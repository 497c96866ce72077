"""`searchkit verify`: prove a bundle again, with nothing but the bundle."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np

from searchkit.data import streets
from searchkit.errors import BackendUnavailableError, SearchkitError, UsageError

from .backends import BACKENDS, SessionInfo
from .bundle import Bundle
from .bundled import BundledModel
from .deployable import Deployable
from .golden import MIN_CLASSES, check_golden, golden_of
from .lowering.record import sentence
from .verify import verify

DEFAULT_BACKEND = "onnxruntime"
_PICTURE_INDEX = 1000


@dataclass(frozen=True)
class Check:
    """One thing that was to be proved.

    Attributes:
        name: in a word.
        state: `passed`, `failed`, or `not proved` where the bundle does not hold what it takes.
        text: the figures, or why.
    """

    name: str
    state: str
    text: str


@dataclass(frozen=True)
class Proof:
    """What was found about a bundle.

    Attributes:
        bundle: the folder.
        schema: of its manifest.
        network, io, precision, resolution: what it holds.
        session: what ran the golden picture; None where nothing did.
        verification: the comparison with PyTorch, as `Report.to_tree` has it; None where there was none.
    """

    bundle: str
    schema: int
    network: str
    io: str
    precision: str
    resolution: str
    checks: tuple[Check, ...]
    session: SessionInfo | None
    verification: dict[str, Any] | None

    @property
    def problems(self) -> list[str]:
        """What failed; empty if nothing did."""
        return [f"{check.name}: {check.text}" for check in self.checks if check.state == "failed"]

    @property
    def unproved(self) -> list[str]:
        """What could not be proved, and why."""
        return [f"{check.name}: {check.text}" for check in self.checks if check.state == "not proved"]

    def to_tree(self) -> dict[str, Any]:
        """All of it as JSON."""
        tree = {**asdict(self), "schema": 1, "bundle_schema": self.schema, "passed": not self.problems}
        found: dict[str, Any] = _finite(tree)
        return found


def _finite(tree: Any) -> Any:
    """JSON has no NaN: null in its place, and the check's text says what it was."""
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def prove(
    bundle: Bundle,
    *,
    backend: str = DEFAULT_BACKEND,
    mode: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    trust_engines: bool = False,
) -> Proof:
    """Check model, network and golden picture of a bundle, whose files were checked when it was opened.

    Args:
        bundle: from `read_bundle`.
        backend, mode, device, threads: what runs the golden picture.
        trust_engines: whether an engine in the bundle, which is code, may be run for it.

    Raises:
        UsageError: no such backend or mode.
        DamagedArtifactError: a file has changed since, or holds no model that may be opened.
        BackendUnavailableError: ONNX Runtime, which compares, or the chosen backend cannot be used here.
    """
    BACKENDS.load(backend).require(device)
    model = BundledModel(bundle, trust_engines=trust_engines)
    checks = [
        Check("files", "passed", f"{len(bundle.entries)} files have the sizes and SHA-256 that the manifest states"),
        Check("model", "passed", f"model.onnx, {len(model.onnx)} bytes, holds nothing but what searchkit exports"),
        _engines(model),
    ]
    if model.lowering_record is not None:
        checks.append(Check("rewrites", "passed", sentence(model.lowering_record)))
    compared, report = _network(model)
    try:
        ran, info = _golden(model, backend, mode, device, threads)
    except BackendUnavailableError as error:
        raise model.advise_trust(backend, error) from error.__cause__
    described = model.description
    return Proof(
        bundle=str(bundle.path),
        schema=bundle.schema,
        network=model.network.name,
        io=described.io,
        precision=described.precision,
        resolution=str(described.size),
        checks=(*checks, compared, *ran),
        session=info,
        verification=report,
    )


def _engines(model: BundledModel) -> Check:
    """Their records; no engine is opened for this."""
    records = model.records()
    names = ", ".join(f"{record.backend} for {' '.join(record.targets)}" for record in records)
    return Check("engines", "passed", f"each is the one on record: {names}" if records else "there are none")


def _network(model: BundledModel) -> tuple[Check, dict[str, Any] | None]:
    """The PyTorch network, rebuilt, against the model."""
    if "weights.safetensors" not in model.bundle.entries:
        return Check("network", "not proved", _too_old(model.bundle, "weights")), None
    # It has all that a comparison reads of a network that is being exported.
    report = verify(cast(Deployable, model), model.onnx)
    worst = max(comparison.max_abs_error for comparison in report.comparisons)
    agreement = min(comparison.masked_agreement for comparison in report.comparisons)
    text = f"max abs error {worst:.2g}, labels agree on {agreement:.4%} of clear pixels of {report.pictures} pictures"
    if report.passed:
        return Check("network", "passed", f"rebuilt and compared: {text}"), report.to_tree()
    return Check("network", "failed", "; ".join(report.problems)), report.to_tree()


def _golden(
    model: BundledModel, backend: str, mode: str | None, device: str | None, threads: int | None
) -> tuple[list[Check], SessionInfo | None]:
    """The golden picture on a backend; in bundles of schema 1, only that the answer is not one class everywhere."""
    golden = golden_of(model)
    batch = golden.input if golden else model.contract.encode(streets.draw(0, _PICTURE_INDEX, model.size).image)
    try:
        with BACKENDS.load(backend).open(model, device=device, threads=threads, mode=mode) as session:
            output, info = session.run(batch), session.info
    except (BackendUnavailableError, UsageError):
        raise
    except Exception as error:
        # Each runtime has exceptions of its own, of several lines.
        reason = str(error) if isinstance(error, SearchkitError) else str(error).partition("\n")[0][:200]
        return [Check("golden picture", "failed", f"{backend} cannot run the model: {reason}")], None
    where = f"{info.backend} {info.version}, {info.provider}"
    if golden is None:
        classes = len(np.unique(model.contract.labels(output, model.size)))
        state = "passed" if classes >= MIN_CLASSES else "failed"
        checks = [Check("answer", state, f"{classes} classes on a generated street, by {where}")]
        return [*checks, Check("golden picture", "not proved", _too_old(model.bundle, "golden picture"))], info
    found = check_golden(golden, model, output, info)
    largest = "" if found.max_abs_error is None else f", max abs error {found.max_abs_error:.2g}"
    text = f"labels agree on {found.agreement:.4%} of pixels{largest}, {found.classes} classes, by {where}"
    if found.problems:
        return [Check("golden picture", "failed", f"{'; '.join(found.problems)} ({where})")], info
    return [Check("golden picture", "passed", text)], info


def _too_old(bundle: Bundle, what: str) -> str:
    return f"a bundle of schema {bundle.schema} holds no {what}; export it again to prove it"

"""The model in a bundle, as backends take it: a `Model` whose every part is checked before it is used."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from searchkit.errors import DamagedArtifactError, InputFileError, SearchkitError, UsageError
from searchkit.label_sets import MAX_CLASSES, LabelSet
from searchkit.networks import Network, resolve
from searchkit.sizes import MAX_SIDE_PX, Size

from .bundle import Bundle
from .contracts import CONTRACTS, Contract
from .engine_record import EngineRecord, read_records
from .letterbox import ResizeRule
from .lowering.record import FILE as LOWERING
from .lowering.record import check_record
from .onnx_gate import Interface, check_onnx

if TYPE_CHECKING:
    from torch import Tensor, nn

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Description:
    """What `contract.json` says.

    Attributes:
        io: name of the tensor contract.
        size: height and width of the model's input.
        labels: names and colours of the classes.
        trained: False for seeded weights.
        weights: where they came from.
        precision: of the model.
        resize: how pictures get the model's size.
    """

    io: str
    contract: Contract
    size: Size
    labels: LabelSet
    trained: bool
    weights: str
    precision: str
    resize: ResizeRule


def describe(bundle: Bundle) -> Description:
    """Read `contract.json`; raises `DamagedArtifactError` where it does not say what it must."""
    tree = bundle.json("contract.json")
    try:
        return _description(tree)
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        where = str(bundle.path / "contract.json")
        raise DamagedArtifactError("not a contract", where=where, got=str(error), fix="export it again") from None


def _description(tree: Any) -> Description:
    resolution, weights = tree["resolution"], tree["weights"]
    palette = tuple((_byte(red), _byte(green), _byte(blue)) for red, green, blue in tree["palette"])
    names = tuple(str(name) for name in tree["classes"])
    if not names or len(palette) > min(len(names), MAX_CLASSES):
        raise ValueError(f"{len(names)} classes in {len(palette)} colours")
    precision = tree.get("precision", "fp32")
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}")
    return Description(
        io=str(tree["io"]),
        contract=CONTRACTS.load(tree["io"]),
        size=Size(*(_integer(resolution[side], 1, MAX_SIDE_PX) for side in ("height_px", "width_px"))),
        labels=LabelSet("bundle", names, palette, _byte(tree["ignore"])),
        trained=bool(weights["trained"]),
        weights=str(weights["text"]),
        precision=precision,
        resize=ResizeRule.from_tree(tree.get("resize")),
    )


def _integer(value: Any, lowest: int, highest: int) -> int:
    if type(value) is not int or not lowest <= value <= highest:
        raise ValueError(f"{value!r} is not an integer from {lowest} to {highest}")
    return value


def _byte(value: Any) -> int:
    return _integer(value, 0, 255)


class BundledModel:
    """A bundle as a `Model`.

    Args:
        trust_engines: whether engines, which are code, may be handed to a backend.

    Raises:
        DamagedArtifactError: the bundle's contract is none.
    """

    def __init__(self, bundle: Bundle, *, trust_engines: bool = False) -> None:
        self.bundle = bundle
        self.description = describe(bundle)
        self._trust_engines = trust_engines

    @property
    def contract(self) -> Contract:
        return self.description.contract

    @property
    def size(self) -> Size:
        return self.description.size

    @property
    def precision(self) -> str:
        return self.description.precision

    @cached_property
    def precision_record(self) -> dict[str, Any] | None:
        """How the model came to its precision; None for fp32, and where the bundle does not say."""
        if "precision.json" not in self.bundle.entries:
            return None
        record = self.bundle.json("precision.json")
        if not isinstance(record, dict):
            raise DamagedArtifactError(
                "not a record of a precision", where=str(self.bundle.path / "precision.json"), fix="export it again"
            )
        return record

    @cached_property
    def lowering_record(self) -> dict[str, Any] | None:
        """Which rewrites the model has; None where none were asked for, or where the bundle does not say."""
        if LOWERING not in self.bundle.entries:
            return None
        return check_record(self.bundle.json(LOWERING), where=str(self.bundle.path / LOWERING))

    @cached_property
    def onnx(self) -> bytes:
        """The ONNX model, after it passed the gate and was found to keep the contract."""
        data = self.bundle.files["model.onnx"]
        where = str(self.bundle.path / "model.onnx")
        self._check_interface(check_onnx(data, where=where, written_here=True), where)
        return data

    def _check_interface(self, interface: Interface, where: str) -> None:
        wanted, found = self.contract.input_spec(self.size), interface.input
        if (found.name, found.dtype, found.shape) != (wanted.name, wanted.dtype, tuple(wanted.shape)):
            raise DamagedArtifactError(
                "the model takes another input than the contract says",
                where=where,
                got=f"{found.name} {found.dtype} {found.shape}",
                allowed=f"{wanted.name} {wanted.dtype} {tuple(wanted.shape)}",
                fix="export it again",
            )
        # Its shape is the network's own where the contract leaves it to that, so its form is what can be compared.
        name, layout = self.contract.output_name, self.contract.output_layout
        if interface.output.name != name or len(interface.output.shape) != len(layout):
            raise DamagedArtifactError(
                "the model gives another output than the contract says",
                where=where,
                got=f"{interface.output.name} {interface.output.shape}",
                allowed=f"{name} {layout}",
                fix="export it again",
            )

    @cached_property
    def network(self) -> Network:
        """The network that `network.json` describes."""
        path = self.bundle.path / "network.json"
        try:
            network = resolve(str(path))
        except InputFileError as error:
            raise DamagedArtifactError(error.problem, where=error.where, got=error.got, fix="export it again") from None
        if network.to_json().encode() != self.bundle.files["network.json"]:
            raise DamagedArtifactError("not as searchkit writes it", where=str(path), fix="export it again")
        return network

    @cached_property
    def module(self) -> nn.Module:
        """The PyTorch network inside its contract, float32, rebuilt from the bundle alone.

        Raises:
            UsageError: the bundle is of schema 1, which holds no weights.
            DamagedArtifactError: the weights are not those of the network.
        """
        from searchkit.weights import load_weights

        path = self.bundle.path / "weights.safetensors"
        if path.name not in self.bundle.entries:
            raise UsageError(
                "this bundle holds no weights, so its PyTorch network cannot be rebuilt",
                where=str(self.bundle.path),
                fix="export it again: bundles of schema 2 hold them",
            )
        self.network.check(self.size)
        built = self.network.build()
        try:
            loaded = load_weights(built, path, digest=self.network.digest)
        except InputFileError as error:
            raise DamagedArtifactError(error.problem, where=error.where, got=error.got, fix="export it again") from None
        if loaded.sha256 != self.bundle.entries[path.name].sha256:
            raise DamagedArtifactError("file changed while it was read", where=str(path), fix="try again")
        return self.contract.wrap(built.eval(), self.size).eval()

    def example(self) -> Tensor:
        """An input of the right shape and dtype."""
        return self.contract.example(self.size)

    def records(self) -> list[EngineRecord]:
        """What the bundle says of its engines; opens none."""
        return read_records(self.bundle)

    def engine(self, backend: str) -> bytes | None:
        """The engine for a backend; None where there is none, or where engines are not trusted."""
        record = self._record(backend)
        return self.bundle.files[record.file] if record and self._trust_engines else None

    def engine_options(self, backend: str) -> dict[str, str]:
        """Settings of the build of that engine, as the compiler recorded them; empty where there is no engine."""
        record = self._record(backend)
        return record.options if record else {}

    def _record(self, backend: str) -> EngineRecord | None:
        wanted = backend.replace("_", "-")
        return next((record for record in self.records() if record.backend == wanted), None)

    def advise_trust(self, backend: str, error: SearchkitError) -> SearchkitError:
        """A backend's refusal; where an engine that was not trusted might have helped, it says so."""
        if not self._trust_engines and self._record(backend):
            error.fix = (
                f"the bundle holds an engine for {backend}; engines are code: if you trust where it came from, pass "
                "trust_engines=True, or --trust-engine on the command line"
            )
        return error

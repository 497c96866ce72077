"""Which runtimes, versions and precisions serve a GPU, and what they refuse: facts from `targets.toml`, with sources.

Nothing here looks at this machine; `searchkit doctor` does that.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from searchkit.errors import InputFileError, unknown_name
from searchkit.files import read_bytes

_TABLE = Path(__file__).parent / "targets.toml"
_MAX_TABLE_BYTES = 1 << 20

RUNTIMES = ("tensorrt", "tensorrt-rtx", "onnxruntime", "torch")
COMPILERS = ("tensorrt", "tensorrt-rtx")
_SUPPORT = (*RUNTIMES, "cuda", "driver")
PRECISIONS = ("fp32", "fp16", "int8", "bf16", "fp8")


@dataclass(frozen=True)
class Support:
    """Whether one piece of software serves the target.

    Attributes:
        name: of `RUNTIMES`, or `cuda` or `driver`.
        verdict: `yes`, `slow`, `no` or `unlisted` (it may run, but its maker does not list it).
        text: the range of versions, or why not.
        opset: the highest ONNX opset that it reads; None where that is not known.
    """

    name: str
    verdict: str
    text: str
    source: str
    opset: int | None = None


@dataclass(frozen=True)
class Refusal:
    """What one or more runtimes do not take on the target; `check` names the rule that finds it in a model."""

    what: str
    check: str
    runtimes: tuple[str, ...]
    why: str
    source: str


@dataclass(frozen=True)
class Caution:
    """What to beware of."""

    text: str
    source: str


@dataclass(frozen=True)
class Plan:
    """What to run on a target, and how to get it.

    Attributes:
        target: as it was asked for, in canonical form, such as `rtx2080ti` or `sm75`.
        sm: compute capability, such as `sm75`; `cpu` for the CPU.
        recommended: the runtime of `RUNTIMES` to take.
        support: what is known of each piece of software.
        precisions: precision to `tensor cores`, `yes` (ordinary units) or `no`; those not known are left out.
        refused: what the recommended runtime and the others refuse here.
        packages: role to exact pip requirement; empty where pip does not serve the target.
        pip: the command lines that install them, beside searchkit itself.
        image: Docker image with the CUDA libraries, None where there is none.
        sources: what the source names stand for.
    """

    target: str
    title: str
    sm: str
    architecture: str
    recommended: str
    support: tuple[Support, ...]
    precisions: dict[str, str]
    refused: tuple[Refusal, ...]
    packages: dict[str, str]
    pip: tuple[str, ...]
    image: str | None
    warnings: tuple[Caution, ...]
    sources: dict[str, str]

    def supports(self, name: str) -> Support:
        """What is known of one piece of software; the verdict is `unlisted` where nothing is."""
        unknown = Support(name, "unlisted", "nothing is known of it here", "")
        return next((s for s in self.support if s.name == name), unknown)

    def to_tree(self) -> dict[str, object]:
        return {"schema": 1, **asdict(self)}

    def lines(self) -> list[str]:
        """For people: one fact a line."""
        lines = [f"{self.target}: {self.title}, {self.architecture}, {self.sm}", f"recommended: {self.recommended}"]
        lines += [f"{s.name}: {s.verdict}, {s.text} [{s.source}]" for s in self.support]
        if self.precisions:
            lines.append("precisions: " + ", ".join(f"{name} {how}" for name, how in self.precisions.items()))
        lines += [f"install: {line}" for line in self.pip]
        if self.image:
            lines.append(f"image: {self.image}")
        lines += [f"refused by {', '.join(r.runtimes)}: {r.what} ({r.why}) [{r.source}]" for r in self.refused]
        lines += [f"warning: {w.text} [{w.source}]" for w in self.warnings]
        return lines + [f"source {name}: {text}" for name, text in self.sources.items()]


def targets() -> list[str]:
    """All names that `plan` takes, named GPUs first."""
    table = _table()
    return [*table["names"], *(sm for sm in table["targets"] if sm not in table["names"])]


def plan(target: str) -> Plan:
    """What serves a target.

    Args:
        target: a name such as `rtx2080ti` or `RTX 2080 Ti`, or a compute capability as `sm75` or `7.5`.

    Raises:
        UsageError: nothing is known of it; the nearest names are listed.
    """
    table = _table()
    name = _canonical(target)
    if name not in targets():
        raise unknown_name("target", target, targets(), where="--target")
    entry = table["names"].get(name, {"title": f"GPUs of compute capability {name[2:-1]}.{name[-1:]}", "sm": name})
    facts, line = table["targets"][entry["sm"]], table["lines"][table["targets"][entry["sm"]]["line"]]
    support = tuple(_support(kind, facts[kind]) for kind in _SUPPORT if kind in facts)
    served = [s.name for s in support if s.verdict in ("yes", "slow", "unlisted")]
    refused = tuple(_refusal(r, entry["sm"], served) for r in table["refusals"] if _applies(r, entry["sm"], served))
    warnings = tuple(Caution(w["text"], w["source"]) for w in table["cautions"] if _applies(w, entry["sm"], served))
    packages = _packages(line, support)
    cited = {entry.get("source", ""), facts.get("precisions", {}).get("source", ""), line["source"]}
    cited |= {s.source for s in support} | {r.source for r in refused} | {w.source for w in warnings}
    keys = {key for text in cited for key in text.split()}
    return Plan(
        target=name,
        title=entry["title"],
        sm=entry["sm"],
        architecture=facts["architecture"],
        recommended=facts["recommended"],
        support=support,
        precisions={k: v for k, v in facts.get("precisions", {}).items() if k != "source"},
        refused=refused,
        packages=packages,
        pip=_pip_lines(packages, line.get("index")),
        image=line.get("image"),
        warnings=warnings,
        sources={key: text for key, text in table["sources"].items() if key in keys},
    )


def check_export(target: str, io: str, precision: str, onnx_bytes: bytes, *, runtime: str | None = None) -> list[str]:
    """Why a runtime on the target would not take a model; empty if nothing speaks against it.

    Args:
        target: as `plan` takes it.
        io: name of the tensor contract, for the messages.
        precision: of the model: `fp32`, `fp16` or `int8`.
        onnx_bytes: the serialised model.
        runtime: of `RUNTIMES`; the recommended one if None.

    Raises:
        UsageError: an unknown target or runtime.
        InputFileError: not an ONNX model.
    """
    planned = plan(target)
    chosen = runtime.replace("_", "-") if runtime else planned.recommended
    if chosen not in RUNTIMES:
        raise unknown_name("runtime", chosen, RUNTIMES)
    support = planned.supports(chosen)
    if support.verdict == "no":
        return [f"{chosen} does not serve {planned.target}: {support.text}"]
    problems = []
    if chosen in COMPILERS and planned.precisions.get(precision) == "no":
        problems.append(f"{chosen} on {planned.target} does not compute in {precision}")
    graph = _graph(onnx_bytes)
    if support.opset is not None and graph.opset > support.opset:
        problems.append(f"{chosen} on {planned.target} reads ONNX opset {support.opset} at most, this is {graph.opset}")
    from ._graph_rules import RULES

    for refusal in planned.refused:
        found = RULES[refusal.check](graph) if chosen in refusal.runtimes else None
        if found:
            problems.append(
                f"{chosen} on {planned.target} refuses {refusal.what}: {found} in the {io} model ({refusal.why})"
            )
    return problems


def targets_markdown() -> str:
    """The table of targets that docs/engines.md shows."""
    plans = [plan(name) for name in _table()["names"]]
    rows = ["| target | GPU | SM | take | TensorRT | TensorRT-RTX | ONNX Runtime | torch | tensor cores for |"]
    rows.append("|---|---|---|---|---|---|---|---|---|")
    for p in plans:
        cells = [f"`{p.target}`", p.title, p.sm.removeprefix("sm") if p.sm != "cpu" else "-", p.recommended]
        cells += [_cell(p.supports(name)) for name in RUNTIMES[:2]]
        cells += [p.packages.get(name, "-") for name in ("onnxruntime", "torch")]
        cells.append(", ".join(k for k, v in p.precisions.items() if v == "tensor cores") or "-")
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def _cell(support: Support) -> str:
    return f"{support.verdict}: {support.text}"


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(read_bytes(_TABLE, limit_bytes=_MAX_TABLE_BYTES, what="table of targets").decode())


def _canonical(target: str) -> str:
    name = "".join(c for c in target.lower() if c.isalnum() or c == ".")
    digits = name.removeprefix("sm").replace(".", "")
    return f"sm{digits}" if digits.isdigit() else name


def _support(name: str, fact: dict[str, Any]) -> Support:
    return Support(name, fact["verdict"], fact["text"], fact["source"], fact.get("opset"))


def _applies(entry: dict[str, Any], sm: str, served: list[str]) -> bool:
    return sm in entry.get("targets", [sm]) and any(runtime in served for runtime in entry["runtimes"])


def _refusal(entry: dict[str, Any], sm: str, served: list[str]) -> Refusal:
    runtimes = tuple(runtime for runtime in entry["runtimes"] if runtime in served)
    return Refusal(entry["what"], entry["check"], runtimes, entry["why"], entry["source"])


def _packages(line: dict[str, Any], support: tuple[Support, ...]) -> dict[str, str]:
    """The line's packages, less those of runtimes that do not serve the target well."""
    good = {s.name for s in support if s.verdict == "yes"}
    return {role: line[role] for role in (*RUNTIMES, "cuda") if role in line and (role == "cuda" or role in good)}


def _pip_lines(packages: dict[str, str], index: str | None) -> tuple[str, ...]:
    if not packages:
        return ()
    torch = f"pip install {packages['torch']}" + (f" --index-url {index}" if index else "")
    rest = [packages[role] for role in ("onnxruntime", "tensorrt", "tensorrt-rtx") if role in packages]
    if "cuda" in packages:
        rest.append(packages["cuda"])
    return torch, f"pip install {' '.join(rest)}"


def _graph(onnx_bytes: bytes) -> Any:
    from google.protobuf.message import DecodeError
    from onnx.shape_inference import InferenceError

    from ._graph_rules import Graph

    try:
        return Graph(onnx_bytes)
    except (DecodeError, InferenceError, ValueError) as error:
        raise InputFileError(
            "not an ONNX model whose types can be told", got=str(error).partition("\n")[0], fix="export it again"
        ) from error

"""`python -m bench.gpu_run`, which is `make gpu`: all that is measured on a GPU, in one command of under nine minutes.

Every step is a process of its own with an end to its time, so that one that fails, hangs or loses the device takes no
other with it. After each, `<device>.json` is written anew with what there is: results, and for what did not run, why.
Nothing is installed and nothing fetched; for pydantic and fvcore, if they are missing, `bench/standins` stand in.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from searchkit.console import err, run
from searchkit.errors import BackendUnavailableError, InputFileError, SearchkitError, UsageError, unknown_name
from searchkit.files import read_bytes, write_text

from .gpu_steps import SIZES, Step, steps

SCHEMA = 1
KIND = "GPU run"
#: Nine minutes less what starting and ending may take.
BUDGET_S = 510.0
#: What a step has for writing down what it holds, once its time is over.
GRACE_S = 15.0
MACHINE_S = 60.0

DONE, PARTLY, FAILED, TIMED_OUT, LEFT_OUT = "done", "partly", "failed", "timed out", "left out"

ROOT = Path(__file__).parents[1]
_STANDINS = {"pydantic": "for_pydantic", "fvcore": "for_fvcore"}
_MAX_RESULT_BYTES = 64 << 20
_MAX_SHOWN = 300
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended; `code` is None where its time was over."""

    code: int | None
    output: str
    seconds: float


@dataclass(slots=True)
class Outcome:
    """What became of a step, as it stands in the file."""

    step: Step
    state: str
    why: str = ""
    seconds: float = 0.0
    allowed_s: float = 0.0
    in_brief: bool = False
    result: Any = None

    def to_tree(self) -> dict[str, Any]:
        return {
            "name": self.step.name,
            "what": self.step.what,
            "state": self.state,
            "why": self.why,
            "seconds": round(self.seconds, 1),
            "allowed_s": round(self.allowed_s, 1),
            "in_brief": self.in_brief,
            "result": self.result,
        }


Execute = Callable[[Sequence[str], float, dict[str, str]], Ended]


@dataclass(frozen=True)
class Plan:
    """What is run, where results go, and what runs it.

    Attributes:
        execute: runs a command for so many seconds at most; given in tests.
        clock: seconds, monotonic.
    """

    device: str
    steps: Sequence[Step]
    budget_s: float
    results: Path
    logs: Path
    execute: Execute
    clock: Callable[[], float] = time.monotonic
    say: Callable[[str], None] = field(default=lambda text: None)


def execute(command: Sequence[str], seconds: float, environment: dict[str, str]) -> Ended:
    """Run in a process group; once its time is over interrupt it, so that `bench` writes what it has, then kill it."""
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    code: int | None
    try:
        try:
            output, _ = process.communicate(timeout=seconds)
            code = process.returncode
        except subprocess.TimeoutExpired:
            code = None
            output = _stop(process)
    except BaseException:
        _kill(process)
        raise
    # What it started may outlive it.
    _kill(process)
    return Ended(code, output, time.monotonic() - began)


def _stop(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=GRACE_S)
    except subprocess.TimeoutExpired:
        _kill(process)
        output, _ = process.communicate()
    return output


def _kill(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def environment() -> tuple[dict[str, str], list[str]]:
    """For the steps: this checkout on the path, and stand-ins for what is missing; the names of those."""
    missing = [name for name in _STANDINS if not _is_there(name)]
    folders = [ROOT, *(ROOT / "bench" / "standins" / _STANDINS[name] for name in missing)]
    paths = [*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}, missing


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:
        # Something put None or a nameless module in its place.
        return False


def measure(plan: Plan) -> Path:
    """Run all steps and return the file that holds what came of them.

    Raises:
        BackendUnavailableError: there is no such device.
        StorageError: the file cannot be written.
    """
    began = plan.clock()
    variables, missing = environment()
    for folder in (plan.results, plan.logs):
        folder.mkdir(parents=True, exist_ok=True)
    machine = _machine(plan, variables)
    path = plan.results / f"{slug(machine, plan.device)}.json"
    outcomes: list[Outcome] = []
    for index, step in enumerate(plan.steps):
        plan.say(f"{step.name}: {step.what}")
        reserved = sum(later.least_s for later in plan.steps[index + 1 :])
        left = plan.budget_s - (plan.clock() - began)
        outcomes.append(_outcome(plan, step, left - reserved if left - reserved >= step.least_s else left, variables))
        last = outcomes[-1]
        plan.say(f"{step.name}: {last.state}, {last.seconds:.0f} s{f', {last.why}' if last.why else ''}")
        tree = {
            "schema": SCHEMA,
            "kind": KIND,
            "device": plan.device,
            "machine": machine,
            "stood_in_for": missing,
            "budget_s": plan.budget_s,
            "seconds": round(plan.clock() - began, 1),
            "complete": index == len(plan.steps) - 1,
            "steps": [outcome.to_tree() for outcome in outcomes],
        }
        write_text(path, json.dumps(tree, allow_nan=False, separators=(",", ":")) + "\n")
    return path


def _machine(plan: Plan, variables: dict[str, str]) -> dict[str, Any]:
    """In a process of its own: this one must not hold memory of the device."""
    target = plan.logs / "machine.json"
    target.unlink(missing_ok=True)
    command = [sys.executable, "-m", "bench.gpu_machine", plan.device, str(target)]
    ended = plan.execute(command, MACHINE_S, variables)
    write_text(plan.logs / "machine.log", ended.output)
    if ended.code != 0:
        raise BackendUnavailableError(
            f"the device {plan.device} cannot be used here: {_reason(ended).removeprefix('error: ')}",
            fix="run it where there is one, or give `--device cpu` to try the steps",
        )
    tree = _read(target)
    if not isinstance(tree, dict):
        raise InputFileError("not a description of a machine", where=str(target))
    return tree


def _outcome(plan: Plan, step: Step, available_s: float, variables: dict[str, str]) -> Outcome:
    if step.needs_gpu and plan.device == "cpu":
        return Outcome(step, LEFT_OUT, "it needs a GPU")
    if available_s < step.least_s:
        return Outcome(step, LEFT_OUT, f"{max(available_s, 0):.0f} s are left and it takes {step.least_s:g} at least")
    in_brief = available_s < step.full_s
    allowed = min(step.most_s, available_s)
    paths = {name: plan.logs / f"{step.name}.{name}" for name in ("json", "xml")}
    for path in paths.values():
        path.unlink(missing_ok=True)
    # An option that is given already is not given twice.
    more = [part for part in step.brief if in_brief and part not in step.command]
    command = [sys.executable, *(part.format(**paths) for part in (*step.command, *more))]
    # Whatever a step does, the others are run.
    try:
        ended = plan.execute(command, max(allowed - GRACE_S, allowed / 2), variables)
    except OSError as error:
        return Outcome(step, FAILED, f"it could not be started: {error}", allowed_s=allowed)
    write_text(plan.logs / f"{step.name}.log", ended.output)
    state, why, result = _judged(ended, paths, allowed)
    return Outcome(step, state, why, ended.seconds, allowed, in_brief, result)


def _judged(ended: Ended, paths: dict[str, Path], allowed: float) -> tuple[str, str, Any]:
    """State, reason and result of a process that ended."""
    try:
        result = _result(paths)
    except SearchkitError as error:
        return FAILED, f"its result cannot be read: {_clean(str(error))}", None
    if ended.code is None:
        why = f"its {allowed:.0f} s were over{'; the result holds what was finished' if result else ''}"
        return TIMED_OUT, why, result
    if ended.code == 0:
        return (DONE, "", result) if result is not None else (FAILED, "it wrote no result", None)
    return (PARTLY if result is not None else FAILED), _reason(ended), result


def _result(paths: dict[str, Path]) -> Any:
    if paths["json"].exists():
        return _rounded(_read(paths["json"]))
    if paths["xml"].exists():
        return _tests(paths["xml"])
    return None


def _read(path: Path) -> Any:
    data = read_bytes(path, limit_bytes=_MAX_RESULT_BYTES, what="result of a step")
    try:
        return json.loads(data)
    except ValueError as error:
        raise InputFileError(f"not valid JSON: {error}", where=path.name) from None


def _tests(path: Path) -> dict[str, Any]:
    """What pytest's report says: how many passed, failed and were skipped, and which failed."""
    from xml.etree import ElementTree

    data = read_bytes(path, limit_bytes=_MAX_RESULT_BYTES, what="report of tests")
    try:
        cases = list(ElementTree.fromstring(data).iter("testcase"))
    except ElementTree.ParseError as error:
        raise InputFileError(f"not valid XML: {error}", where=path.name) from None
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    return {
        "kind": "tests",
        "passed": len(cases) - len(failed) - len(skipped),
        "failed": len(failed),
        "skipped": len(skipped),
        "failures": [case.get("name", "") for case in failed],
    }


def _rounded(value: Any) -> Any:
    """Fractions to six significant digits: no timer is better, and the file is committed."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return {key: _rounded(item) for key, item in value.items()} if isinstance(value, dict) else value


def _reason(ended: Ended) -> str:
    """The last line that looks like an error, or the last of all."""
    if ended.code is None:
        return "it did not answer in time"
    lines = [line.strip() for line in ended.output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(error: |\w*(Error|Exception)\b|FAILED|ERROR)", line)]
    said = (errors or lines or ["no output"])[-1]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return _clean(said) + more if ended.code > 0 else f"ended by signal {-ended.code}: {_clean(said)}"


def _clean(text: str) -> str:
    """No path of this machine, and of bounded length."""
    text = text.replace(f"{ROOT}{os.sep}", "").replace(str(ROOT), ".").replace(str(Path.home()), "~")
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def slug(machine: dict[str, Any], device: str) -> str:
    """A file name for a device: the GPU's, or the processor's."""
    name = str(machine.get("gpu") or machine.get("cpu") or device)
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] or device


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def gpu_run(
    device: Annotated[str, typer.Option("--device", help="cuda, or cpu to try the steps without one.")] = "cuda",
    budget: Annotated[float, typer.Option("--budget", min=1, max=3600, help="Seconds for all of it.")] = BUDGET_S,
    quick: Annotated[bool, typer.Option("--quick", help="Few networks and rounds: whether the steps work.")] = False,
    resolution: Annotated[
        str, typer.Option("--resolution", metavar="HxW,HxW", help="The smaller input and the larger.")
    ] = ",".join(SIZES),
    results: Annotated[Path, typer.Option("--results", metavar="DIR", help="For the result.")] = ROOT / "bench/results",
    logs: Annotated[Path, typer.Option("--logs", metavar="DIR", help="For what the steps say.")] = ROOT / "build/gpu",
    only: Annotated[str | None, typer.Option("--only", metavar="STEP,...", help="These steps alone.")] = None,
    readme: Annotated[
        bool, typer.Option("--readme", help="Measure nothing; write the tables of README from the results.")
    ] = False,
) -> None:
    """Measure everything on this machine's GPU, or write README's tables from what was measured."""
    from searchkit.sizes import parse_size

    if readme:
        from .gpu_readme import rewrite

        rewrite(ROOT / "README.md", results)
        return
    if device not in ("cuda", "cpu"):
        raise UsageError("unknown device", where="--device", got=device, allowed="cuda or cpu")
    sizes = [str(parse_size(text)) for text in resolution.split(",")]
    if len(sizes) != 2:
        raise UsageError("two resolutions are needed", where="--resolution", got=resolution, allowed="HxW,HxW")
    chosen = _chosen(steps(device, sizes, quick=quick), only)
    plan = Plan(device, chosen, budget, results, logs, execute, say=lambda text: err().print(text, markup=False))
    path = measure(plan)
    err().print(f"results: {path}; logs: {logs}", markup=False)


def _chosen(found: list[Step], only: str | None) -> list[Step]:
    if only is None:
        return found
    names = only.split(",")
    known = [step.name for step in found]
    for name in names:
        if name not in known:
            raise unknown_name("step", name, known, where="--only")
    return [step for step in found if step.name in names]


if __name__ == "__main__":
    sys.exit(run(app))

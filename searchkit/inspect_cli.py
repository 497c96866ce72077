"""`searchkit doctor` and `searchkit inspect`: what this machine, a GPU and a file are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import JsonOption, check_json, out, write_json

if TYPE_CHECKING:
    from deploy.doctor import Diagnosis
    from deploy.engine_header import Header


def doctor(
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="NAME",
            help="Say instead what serves a GPU, with sources: v100, rtx2080ti, orin, sm86, ...",
        ),
    ] = None,
    build_native: Annotated[
        bool,
        typer.Option("--build-native", help="Compile the native label head and pre-processing first (ten seconds)."),
    ] = False,
    json: JsonOption = None,
) -> None:
    """Say what is installed, which backends can run here, and how to get the rest."""
    check_json(json)
    if target is not None:
        if build_native:
            from .errors import UsageError

            raise UsageError("kernels are compiled for this machine only", where="--build-native", fix="leave it out")
        _plan(target, json)
        return
    from deploy.doctor import diagnose

    diagnosis = diagnose(build_native=build_native)
    if json:
        write_json(diagnosis.to_tree(), json)
    if json != "-":
        _print_diagnosis(diagnosis)
    if diagnosis.problems:
        raise typer.Exit(7)


def _plan(target: str, json: str | None) -> None:
    from deploy.planner import plan

    planned = plan(target)
    if json:
        write_json(planned.to_tree(), json)
    if json != "-":
        for line in planned.lines():
            out().print(line, markup=False)


def _print_diagnosis(diagnosis: Diagnosis) -> None:
    console = out()
    for key, value in diagnosis.system.items():
        console.print(f"{key}: {value}", markup=False)
    console.print()
    for package in diagnosis.packages:
        console.print(f"{package.name:16} {package.version or 'not installed: ' + package.install}", markup=False)
    console.print()
    for backend in diagnosis.backends:
        state = (
            f"runs here, version {backend.version}, on {', '.join(backend.devices)}"
            if backend.available
            else f"cannot run here: {backend.reason}. {backend.install}"
        )
        builds = f"; builds engines here for {', '.join(backend.builds)}" if backend.builds else ""
        console.print(f"backend {backend.name}: {state}{builds}", markup=False)
    state = "in use" if diagnosis.native.in_use else "not in use, PyTorch and Pillow do the same"
    console.print(f"native kernels: {state}: {diagnosis.native.text}", markup=False)
    for problem in diagnosis.problems:
        console.print(f"problem: {problem}", markup=False)


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An engine, an ONNX model, weights, an archive.")],
    json: JsonOption = None,
) -> None:
    """Say what made a model file, for what, and what to do with it; needs no GPU and runs nothing.

    A damaged file is described as far as it can be read, and the command ends with 3.
    """
    check_json(json)
    from deploy.engine_header import MAX_BYTES, read_header

    from .errors import InputFileError
    from .files import read_bytes

    if file.is_dir():
        raise InputFileError(
            "a folder",
            where=str(file),
            allowed="a file",
            fix="inspect a file in it; `searchkit verify FOLDER` proves a bundle",
        )
    data = read_bytes(file, limit_bytes=MAX_BYTES, what="model file")
    try:
        header = read_header(data)
    except InputFileError as error:
        raise error.at(str(file)) from None
    if json:
        write_json({"file": str(file), **header.to_tree()}, json)
    if json != "-":
        _print_header(file, header)
    if header.damage:
        raise typer.Exit(InputFileError.exit_code)


def _print_header(file: Path, header: Header) -> None:
    console = out()
    version = f" {header.version}" if header.version else ""
    console.print(f"{file}: {header.runtime}{version}, {header.size_bytes:,} bytes", markup=False)
    if header.targets:
        console.print(f"built for {', '.join(header.targets)}", markup=False)
    for name, text in header.facts.items():
        console.print(f"{name}: {text}", markup=False)
    for note in header.notes:
        console.print(f"note: {note}", markup=False)
    for line in header.advice():
        console.print(f"advice: {line}", markup=False)

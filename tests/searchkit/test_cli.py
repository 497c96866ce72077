"""The `searchkit` command: exit codes, messages, what is left behind, and what goes to which stream."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from deploy.bundle import MANIFEST, ROLES, read_bundle, write_bundle
from searchkit.cli import app
from searchkit.console import run
from searchkit.data import streets
from searchkit.networks import SHIPPED
from searchkit.pictures import read_picture, write_picture
from searchkit.sizes import Size

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
AT = ["--resolution", "64x128"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, which is empty."""
    path = tmp_path / "work"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def cli(capsys):
    """`cli(*argv)`: exit code, standard output, standard error."""

    def call(*argv):
        code = run(app, [str(word) for word in argv])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return code, captured.out, captured.err

    return call


def started(*argv, **options):
    options = {"stderr": subprocess.PIPE, "text": True, "env": ENVIRONMENT} | options
    return subprocess.Popen([sys.executable, "-m", "searchkit", *argv], **options)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


DAMAGED = json.dumps(json.loads((SHIPPED / "ssr.json").read_text()) | {"stem": 0})
WIDE = json.dumps(json.loads((SHIPPED / "ssr.json").read_text()) | {"classes": 64})

REFUSED = [
    ("show faster-seg", 2, "error: unknown network (got 'faster-seg'; allowed: bisenet-r18, ", "mean fasterseg or"),
    ("show missing.json", 2, "error: missing.json: no such file (allowed: a genotype file, ", "ssr"),
    ("show a/b", 2, "error: a/b: no such file", ""),
    ("show .", 3, "error: .: folder has no network.json, as a bundle has", "Check the path"),
    ("show damaged.json", 3, "error: damaged.json: stem: wrong value (got 0; ", ""),
    ("show text.json", 3, "error: text.json: not valid JSON", "line 1, column 1"),
    ("show ssr --resolution 500x1000", 2, "error: --resolution: ssr does not take this size", "Use 504x1000."),
    ("show ssr --resolution 1x1024", 2, "error: --resolution: ssr does not take this size", "Use 16x1024."),
    ("show ssr --resolution 9000x9000", 2, "error: --resolution: height out of range (got 9000; ", "1 to 8192 px"),
    ("show ssr --resolution 512", 2, "error: --resolution: not a resolution (got '512'; ", "such as 512x1024"),
    ("show ssr --resolution 0x8", 2, "error: --resolution: height out of range", ""),
    ("show ssr --resolution -8x8", 2, "error: --resolution: not a resolution", ""),
    ("show wide.json --resolution 8192x8192", 2, "error: ssr: too large: activation memory", "use a smaller input"),
    ("show ssr --resolution 64x128 --json nowhere/x.json", 4, "error: nowhere/x.json: the folder does not exist", ""),
    ("show ssr --resolution 64x128 --json /dev/full", 4, "error: /dev/full: there is a device", ""),
    ("export faster-seg", 2, "error: unknown network", "mean fasterseg or"),
    ("export ssr --resolution 500x1000", 2, "error: --resolution: ssr does not take this size", "Use 504x1000."),
    ("export ssr --resolution 1x1024", 2, "error: --resolution: ssr does not take this size", "Use 16x1024."),
    ("export ssr --resolution 9000x9000", 2, "error: --resolution: height out of range", ""),
    ("export ssr --io nonsense", 2, "error: --io: unknown tensor contract (got 'nonsense'; ", "labels, logits, raw"),
    ("export ssr --json /dev/full", 4, "error: /dev/full: there is a device", ""),
    ("export ssr --json nowhere/x.json", 4, "error: nowhere/x.json: the folder does not exist", ""),
    ("export ssr --json .", 4, "error: .: there is a folder at this path", ""),
    ("export wide.json --resolution 8192x8192", 2, "error: ssr: too large: activation memory", ""),
    ("export ssr --precision fp64", 2, "error: --precision: unknown precision (got 'fp64'; ", "fp16"),
    ("export ssr --precision int8", 2, "error: --calibration: int8 needs pictures to learn", "--calibration streets"),
    ("export ssr --calibration streets", 2, "error: --calibration: fp32 needs no calibration", "--precision"),
    ("export ssr --precision int8 --calibration cityscapes", 2, "error: --data: a path is needed", "cityscapes:PATH"),
    ("export ssr --precision int8 --calibration cityscapes:gone", 3, "error: gone", ""),
    ("export ssr --precision int8 --calibration nonsense", 2, "error: unknown data set (got 'nonsense'; ", "streets"),
    ("export ssr --precision fp16 --max-miou-drop 1", 2, "error: --calibration: settings of a calibration", "data set"),
    ("export ssr --resize crop", 2, "error: --resize: unknown resize rule (got 'crop'; ", "letterbox, stretch"),
    ("export ssr --engine nonsense", 2, "error: unknown backend (got 'nonsense'; ", "tensorrt-rtx"),
    ("export ssr --engine onnxruntime", 2, "error: --engine: backend onnxruntime runs the ONNX model itself", ""),
    ("export ssr --engine tensorrt-rtx", 2, "error: --target: tensorrt-rtx builds for the devices that", "sm75"),
    ("export ssr --engine tensorrt-rtx --target v100", 2, "error: --target: no engine can be built for this", "sm75"),
    ("export ssr --target nonsense", 2, "error: --target: unknown target (got 'nonsense'; ", "rtx2080ti"),
    ("verify missing", 2, "error: missing: not a bundle", "searchkit export"),
    ("verify missing --backend nonsense", 2, "error: unknown backend (got 'nonsense'; ", "onnxruntime"),
    ("verify missing --backend pytorch:fast", 2, "error: --backend: unknown mode of pytorch (got 'fast'; ", "eager"),
    ("verify missing --json nowhere/x.json", 4, "error: nowhere/x.json: the folder does not exist", ""),
    ("run missing text.json -o x.png", 2, "error: missing: not a bundle", "searchkit export"),
    ("run missing text.json -o x.png --overlay --labels", 2, "error: --labels: a map of class indices has no", ""),
    ("networks --resolution x", 2, "error: --resolution: not a resolution", ""),
    ("networks --costs --resolution 500x1000", 2, "error: --resolution: fasterseg does not take this size", "504x1000"),
    ("networks --json /dev/full", 4, "error: /dev/full: there is a device", ""),
    ("schema nonsense", 2, "error: unknown search space (got 'nonsense'; ", "fasterseg"),
    ("schema --json nowhere/x.json", 4, "error: nowhere/x.json: the folder does not exist", ""),
    ("segment missing text.json -o x.png", 2, "error: missing: not a bundle", "searchkit export"),
    ("segment missing text.json -o x.jpg", 2, "error: --output: pictures are written as PNG (got 'x.jpg'; ", ""),
    ("segment missing text.json -o x.png", 2, "error: missing: not a bundle", ""),
    ("data sample cityscape -o x.png", 2, "error: unknown data set (got 'cityscape'; allowed: ", "mean cityscapes"),
    ("data sample cityscapes -o x.png", 2, "error: --data: a path is needed", "cityscapes:PATH"),
    ("data sample streets -o x.jpg", 2, "error: --output: pictures are written as PNG", ""),
    ("data sample streets -o x.png --labels y.jpg", 2, "error: --output: pictures are written as PNG", ""),
    ("data sample streets -o nowhere/x.png --resolution 8x8", 4, "error: nowhere/x.png: the folder does not", ""),
    ("data sample streets -o x.png --index -1", 2, "error: streets: no such sample in split train", "0 to 2974"),
    ("data sample streets -o x.png --difficulty nan", 2, "error: difficulty: not a difficulty", "0 to 1"),
]


@pytest.mark.parametrize(("words", "code", "starts", "says"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_refusal_is_one_line_and_leaves_nothing(folder, cli, words, code, starts, says):
    (folder / "damaged.json").write_text(DAMAGED)
    (folder / "wide.json").write_text(WIDE)
    (folder / "text.json").write_text("nonsense")
    before = contents(folder)
    if words.startswith(("segment missing", "run missing")):
        write_picture(folder / "p.png", streets.draw(0, 0, Size(8, 8)).image)
        words = words.replace("text.json", "p.png")
        before = contents(folder)
    found, output, remarks = cli(*words.split())
    assert found == code
    assert output == ""
    assert remarks.startswith(starts), remarks
    assert says in remarks
    assert remarks.count("\n") == 1
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("nonsense", "No such command 'nonsense'"),
        ("show", "Missing argument 'NETWORK'"),
        ("show ssr --nonsense", "No such option: --nonsense"),
        ("show ssr --depth 99", "--depth"),
        ("export ssr --seed x", "--seed"),
        ("data nonsense", "No such command 'nonsense'"),
        ("segment a b", "Missing option '--output'"),
    ],
)
def test_wrong_words(folder, cli, words, says):
    code, output, remarks = cli(*words.split())
    assert (code, output) == (2, "")
    assert "Usage: searchkit" in remarks
    assert says in remarks


def test_a_damaged_bundle_and_a_damaged_picture(folder, cli, tiny):
    write_bundle(folder / "bundle", dict.fromkeys(ROLES, b"x"))
    (folder / "bundle" / "model.onnx").write_bytes(b"y")
    (folder / "text.png").write_text("no picture")
    assert cli("segment", "bundle", "text.png", "-o", "x.png")[0] == 3
    write_picture(folder / "p.png", streets.draw(0, 0, Size(8, 8)).image)
    code, _, remarks = cli("segment", "bundle", "p.png", "-o", "x.png")
    assert code == 5
    assert "bundle/model.onnx: file has another SHA-256" in remarks
    assert not (folder / "x.png").exists()


@pytest.mark.parametrize(
    ("target", "code", "says"),
    [
        ("file", 2, "file: there is a file, not a folder"),
        ("foreign", 2, "foreign: the folder is not empty and was not written by searchkit"),
        ("file/bundle", 4, "file/bundle: a part of the path is a file"),
        ("/proc/x", 4, "/proc/x: "),
        ("/proc/x/y/z", 4, "/proc/x/y/z: "),
    ],
)
def test_a_place_that_cannot_be_exported_to(folder, cli, tiny, target, code, says):
    (folder / "file").write_text("mine")
    (folder / "foreign").mkdir()
    (folder / "foreign" / "notes.txt").write_text("mine")
    before = contents(folder)
    found, output, remarks = cli("export", tiny(), *AT, "-o", target)
    assert (found, output) == (code, "")
    assert f"error: {says}" in remarks
    assert contents(folder) == before


def test_weights_that_are_no_weights(folder, cli, tiny):
    (folder / "w.safetensors").write_bytes(b"nonsense")
    for name in ("w.safetensors", "missing.safetensors"):
        code, output, remarks = cli("export", tiny(), *AT, "-o", "b", "--weights", name)
        assert (code, output) == (3, "")
        assert f"error: {name}: " in remarks
    assert not (folder / "b").exists()


def test_export_segment_and_back(folder, cli, tiny):
    code, output, remarks = cli("export", tiny(), *AT, "--io", "labels", "--json", "export.json")
    assert code == 0
    assert output.startswith("tiny-labels-64x128: model.onnx, ")
    assert "untrained" in remarks
    tree = json.loads((folder / "export.json").read_text())
    bundle = read_bundle(folder / "tiny-labels-64x128")
    assert tree["onnx_bytes"] == len(bundle.files["model.onnx"])
    assert (tree["schema"], tree["network"], tree["io"], tree["trained"]) == (1, "tiny", "labels", False)
    assert tree["verification"] == bundle.json("verification.json")

    write_picture(folder / "p.png", streets.draw(0, 0, Size(50, 70)).image)
    code, output, remarks = cli("segment", "tiny-labels-64x128", "p.png", "-o", "l.png", "--json", "-")
    assert code == 0
    assert sum(json.loads(output)["share_of_pixels"].values()) == pytest.approx(1)
    assert "untrained weights" in remarks
    assert read_picture(folder / "l.png").shape == (50, 70, 3)
    assert cli("segment", "tiny-labels-64x128", "p.png", "-o", "o.png", "--overlay")[0] == 0
    assert (folder / "o.png").read_bytes() != (folder / "l.png").read_bytes()

    assert cli("show", "tiny-labels-64x128", *AT)[0] == 0
    assert cli("export", "tiny-labels-64x128", *AT, "--io", "labels")[0] == 0, "a bundle may be replaced"


def test_export_verify_and_run(folder, cli, tiny):
    assert cli("export", tiny(), *AT, "--io", "labels", "--resize", "letterbox", "-o", "b")[0] == 0
    code, output, _ = cli("verify", "b")
    assert code == 0
    assert output.startswith("b: tiny at 64x128, fp32, contract labels, bundle of schema 2\n")
    for name in ("files", "model", "engines", "network", "golden picture"):
        assert f"\n{name}: passed: " in output
    code, output, _ = cli("verify", "b", "--backend", "pytorch:eager", "--json", "-")
    tree = json.loads(output)
    assert (code, tree["passed"], tree["session"]["backend"]) == (0, True, "pytorch")

    for index in range(3):
        (folder / "in").mkdir(exist_ok=True)
        write_picture(folder / "in" / f"{index}.png", streets.draw(0, index, Size(50, 70)).image)
    code, output, remarks = cli("run", "b", "in", "-o", "out", "--overlay", "--json", "run.json")
    assert (code, output) == (0, "out: 3 of 3 pictures\n")
    assert "untrained weights" in remarks
    tree = json.loads((folder / "run.json").read_text())
    assert [Path(entry["output"]).name for entry in tree["files"]] == ["0.png", "1.png", "2.png"]
    assert (tree["schema"], tree["style"]) == (1, "overlay")
    code, output, _ = cli("run", "b", "in/0.png", "-o", "one.png", "--labels")
    assert (code, output) == (0, "one.png: 50x70, 5 of 5 classes\n")
    assert cli("segment", "b", "in/0.png", "-o", "s.png", "--overlay")[0] == 0
    assert (folder / "s.png").read_bytes() == (folder / "out" / "0.png").read_bytes()

    (folder / "in" / "1.png").write_text("no picture")
    code, output, remarks = cli("run", "b", "in", "-o", "again")
    assert (code, output) == (3, "again: 2 of 3 pictures\n")
    assert "not segmented: in/1.png: not a picture" in remarks
    assert "error: in: 1 of 3 pictures could not be read. The others are done" in remarks
    assert {p.name for p in (folder / "again").iterdir()} == {"0.png", "2.png"}


def test_a_video_without_ffmpeg_says_so(folder, cli, tiny, monkeypatch):
    assert cli("export", tiny(), *AT, "--io", "labels", "-o", "b")[0] == 0
    (folder / "v.mp4").write_bytes(b"")
    monkeypatch.setenv("PATH", "/nonexistent")
    code, output, remarks = cli("run", "b", "v.mp4", "-o", "o.mp4")
    assert (code, output) == (7, "")
    assert remarks.startswith("error: videos need the program ffmpeg")
    assert not (folder / "o.mp4").exists()


def test_a_bundle_that_does_not_prove_ends_with_5(folder, cli, tiny):
    """Sealed again, so that only the figures speak against it."""
    assert cli("export", tiny(), *AT, "--io", "labels", "-o", "b")[0] == 0
    files = dict(read_bundle(folder / "b").files)
    tensors = load_tensors(files["golden.safetensors"])
    files["golden.safetensors"] = save_tensors(tensors | {"labels": (tensors["labels"] + 1) % 5})
    write_bundle(folder / "b", files)
    code, output, remarks = cli("verify", "b")
    assert code == 5
    assert "golden picture: failed: labels agree on 0.0000% of pixels" in output
    assert remarks.startswith("error: b: verification failed: golden picture: ")
    assert remarks.endswith("Do not use this bundle.\n")
    code, output, _ = cli("verify", "b", "--json", "-")
    assert (code, json.loads(output)["passed"]) == (5, False)


def test_names_with_markup_are_names(folder, cli, tiny):
    assert cli("data", "sample", "streets", "-o", "[red].png", *AT)[1].startswith("[red].png: streets picture")
    # Rich would take this for the end of a style that never began.
    assert cli("export", tiny(), *AT, "-o", "[/b]")[1].startswith("[/b]: model.onnx")
    assert (folder / "[/b]" / MANIFEST).is_file()


def test_a_name_that_is_no_text(folder, cli):
    assert cli("data", "sample", "streets", "-o", "\udcff.png", *AT)[1].startswith("\\udcff.png: ")
    assert [p.name for p in folder.iterdir()] == ["\udcff.png"]
    code, _, remarks = cli("show", "\udcff.json")
    assert code == 2
    assert "no such file" in remarks


@pytest.mark.parametrize(
    "words",
    [
        ["networks"],
        ["networks", "--costs", *AT],
        ["show", "ssr", *AT],
        ["show", "erfnet", *AT, "--depth", "0"],
        ["schema"],
        ["schema", "ssr"],
        ["doctor"],
        ["export", "TINY", *AT],
    ],
    ids=" ".join,
)
def test_json_stands_alone_on_standard_output(folder, cli, tiny, words):
    words = [str(tiny()) if word == "TINY" else word for word in words]
    code, output, _ = cli(*words, "--json", "-")
    assert code == 0
    tree = json.loads(output)
    assert tree.get("schema", 1) == 1
    code, shown, _ = cli(*words, "--json", "x.json")
    assert code == 0
    found = json.loads((folder / "x.json").read_text())
    assert found == tree
    if words[0] != "schema":
        assert shown
        assert not shown.startswith("{")


def test_networks_lists_what_can_be_named(cli):
    from searchkit.networks import known_names

    _, output, _ = cli("networks")
    for name in known_names():
        assert f"{name} " in output
    _, output, _ = cli("networks", "--costs")
    assert "1.023" in output
    assert "10.90" in output


def test_show_prints_the_tree(cli):
    _, output, _ = cli("show", "ssr", "--depth", "1")
    assert "1,022.6 k params" in output
    assert "stage4 Sequential  48x128x256" in output
    assert "sees 39x39 px" in output
    assert "conv3x1" not in output


def test_doctor_says_what_runs(cli):
    code, output, _ = cli("doctor")
    assert code == 0
    assert "backend onnxruntime: runs here" in output
    assert "backend pytorch: runs here" in output
    assert re.search(r"^native kernels: (in use|not in use, PyTorch and Pillow do the same): \S", output, re.MULTILINE)


def test_doctor_compiles_nothing_for_another_machine(cli):
    code, _, error = cli("doctor", "--target", "v100", "--build-native")
    assert code == 2
    assert "--build-native" in error


def test_a_doctor_with_a_problem_ends_with_7(cli, monkeypatch):
    from deploy import doctor

    monkeypatch.setattr(doctor, "_problems", lambda *_: ["it hurts"])
    code, output, _ = cli("doctor")
    assert code == 7
    assert "problem: it hurts" in output


HEAVY = ("torch", "onnx", "onnxruntime", "numpy", "pydantic", "PIL", "safetensors", "rich.progress")


@pytest.mark.parametrize("module", ["searchkit.cli", "bench.cli"])
def test_help_imports_nothing_heavy(module):
    program = (
        f"import sys; from searchkit.console import run; from {module} import app; code = run(app, ['--help']);"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "Commands" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["show", "wide.json", "--resolution", "8192x8192"],
        ["export", "wide.json", "--resolution", "8192x8192"],
        ["export", "ssr", "--resolution", "500x1000"],
        ["export", "ssr", "--io", "nonsense"],
        ["networks"],
    ],
    ids=" ".join,
)
def test_what_needs_no_torch_does_not_import_it(folder, words):
    (folder / "wide.json").write_text(WIDE)
    program = (
        "import sys; from searchkit.console import run; from searchkit.cli import app;"
        "code = run(app, sys.argv[1:]); print(code, 'torch' in sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == f"{0 if words == ['networks'] else 2} False"


@pytest.mark.parametrize("words", [["networks"], ["schema"], ["networks", "--json", "-"], ["--help"]], ids=" ".join)
def test_a_reader_that_has_gone(words):
    end, pipe = os.pipe()
    os.close(end)
    try:
        process = started(*words, stdout=pipe)
    finally:
        os.close(pipe)
    assert process.communicate() == (None, "")
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("words", [["networks"], ["schema"]], ids=" ".join)
def test_an_output_that_is_full(words):
    with open("/dev/full", "w") as full:
        process = started(*words, stdout=full)
        _, remarks = process.communicate()
    assert process.returncode == 4
    assert remarks == "error: output: the disk is full. Free some space or write somewhere else.\n"


def test_an_output_that_is_closed():
    command = f"exec {sys.executable} -m searchkit networks >&-"
    done = subprocess.run(["sh", "-c", command], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_in_the_middle_of_an_export(folder, number, code, word):
    write_bundle(folder / "bundle", {name: name.encode() for name in ROLES})
    before = contents(folder)
    process = started("export", "ssr-baseline1", *AT, "-o", "bundle", "--json", "x.json", stdout=subprocess.PIPE)
    remarks = ""
    while "exporting" not in remarks:
        line = process.stderr.readline()
        assert line, remarks
        remarks += line
    process.send_signal(number)
    output, rest = process.communicate()
    assert process.returncode == code
    assert output == ""
    assert rest == f"error: {word}; nothing was left half-written\n"
    assert contents(folder) == before
    assert [p.name for p in folder.iterdir()] == ["bundle"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_run(folder, cli, tiny, number):
    assert cli("export", tiny(), *AT, "--io", "labels", "-o", "b")[0] == 0
    (folder / "in").mkdir()
    picture = streets.draw(0, 0, Size(50, 70)).image
    write_picture(folder / "in" / "0.png", picture)
    data = (folder / "in" / "0.png").read_bytes()
    for index in range(1, 3000):
        (folder / "in" / f"{index}.png").write_bytes(data)
    process = started("run", "b", "in", "-o", "out", stdout=subprocess.PIPE)
    # A picture that is being written has another name until it is whole.
    while len([path for path in (folder / "out").glob("*.png") if path.stem.isdigit()]) < 3:
        assert process.poll() is None, process.communicate()
    process.send_signal(number)
    output, remarks = process.communicate()
    assert process.returncode == 128 + number
    assert output == ""
    assert remarks.endswith("; nothing was left half-written\n")
    done = list((folder / "out").iterdir())
    assert 3 <= len(done) < 3000
    assert all(read_picture(path).shape == (50, 70, 3) for path in done)

import csv
import io
import json
import subprocess
import sys

import pytest

from bench import fps
from bench.cli import main
from bench.measurement import Measurement
from deploy import deployable
from deploy.backends.pytorch import PyTorchBackend, PyTorchSession
from searchkit.errors import BackendUnavailableError, UsageError

TINY = ["--resolution", "64x128", "--quick", "--backend", "pytorch"]


pytestmark = pytest.mark.usefixtures("brief")


@pytest.fixture
def broken_erfnet(monkeypatch):
    """A backend on which one network opens and then fails at its first run."""
    opened = PyTorchBackend.open

    class Broken(PyTorchSession):
        def execute(self):
            raise RuntimeError("kernel not found\nin a stack trace of the runtime")

    def open_(self, model, **settings):
        session = opened(self, model, **settings)
        if model.network.name == "erfnet":
            session.__class__ = Broken
        return session

    monkeypatch.setattr(PyTorchBackend, "open", open_)


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from bench.cli import main; code = main(['--help']);"
        "heavy = {'torch', 'onnxruntime', 'onnx', 'pydantic', 'numpy', 'fvcore'} & set(sys.modules);"
        "print(heavy, file=sys.stderr); sys.exit(code or bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "profile" in done.stdout


def test_fps_writes_all_forms(tmp_path, capsys):
    files = {name: str(tmp_path / name) for name in ("f.json", "f.csv", "f.md")}
    outputs = ["--json", files["f.json"], "--csv", files["f.csv"], "--markdown", files["f.md"]]
    assert main(["fps", "fast-scnn", "fasterseg", *TINY, *outputs]) == 0
    shown = capsys.readouterr().out
    for words in ("fast-scnn", "FPS is 1000 / p50", "Measured on this machine", "untrained", "64x128"):
        assert words in shown
    tree = json.loads((tmp_path / "f.json").read_text())
    assert list(tree) == ["schema", "machine", "measurements", "failures", "statistics", "complete"]
    assert tree["failures"] == []
    found = [Measurement.from_tree(item) for item in tree["measurements"]]
    assert [m.network.name for m in found] == ["fast-scnn", "fasterseg"]
    assert all(len(m.rounds_ms) == 2 and m.artifact_sha256 is None for m in found)
    by_name = {item["network"]: item for item in tree["statistics"]}
    assert by_name["fasterseg"]["latency_over_fasterseg"] == 1
    assert by_name["fast-scnn"]["p50_ms"] == found[0].statistics.p50_ms
    assert len(list(csv.DictReader((tmp_path / "f.csv").open()))) == 2
    assert (tmp_path / "f.md").read_text().count("\n") == 4


def test_onnxruntime_is_the_default_and_its_artifact_is_named(capsys):
    assert main(["fps", "ssr-baseline1", "--resolution", "64x128", "--quick", "--rounds", "1", "--json", "-"]) == 0
    captured = capsys.readouterr()
    (found,) = (Measurement.from_tree(item) for item in json.loads(captured.out)["measurements"])
    assert found.session.backend == "onnxruntime"
    assert len(found.artifact_sha256) == 64
    assert found.protocol.rounds == 1
    assert "ssr-baseline1" in captured.err, "the table goes where no program reads"


def test_files_are_written_although_nobody_reads_the_table(tmp_path, monkeypatch):
    """As in `bench fps --json fps.json | head -1`."""

    def gone(*_args):
        raise BrokenPipeError

    monkeypatch.setattr("bench.printing.print_fps", gone)
    target = tmp_path / "f.json"
    main(["fps", "fast-scnn", *TINY, "--json", str(target)])
    assert len(json.loads(target.read_text())["measurements"]) == 1


def test_csv_and_markdown_to_standard_output(capsys):
    assert main(["fps", "fast-scnn", *TINY, "--csv", "-"]) == 0
    (line,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert line["resolution"] == "64x128"
    assert main(["fps", "fast-scnn", *TINY, "--markdown", "-"]) == 0
    assert capsys.readouterr().out.startswith("| network |")


def test_a_network_that_refuses_the_size_leaves_the_rest(tmp_path, capsys):
    target = tmp_path / "f.json"
    tiny = ["--resolution", "16x64", "--quick", "--backend", "pytorch"]
    assert main(["fps", "fasterseg", "erfnet", *tiny, "--json", str(target)]) == 2
    captured = capsys.readouterr()
    assert "erfnet" in captured.out
    assert "fasterseg on pytorch" in captured.err
    assert "Use 32x64" in captured.err
    tree = json.loads(target.read_text())
    assert [m["network"]["name"] for m in tree["measurements"]] == ["erfnet"]
    assert tree["failures"][0]["network"] == "fasterseg"


def test_a_backend_that_fails_while_running_leaves_the_rest(broken_erfnet, capsys):
    assert main(["fps", "erfnet", "fast-scnn", *TINY]) == 1
    captured = capsys.readouterr()
    assert "fast-scnn" in captured.out
    assert captured.err == "error: erfnet on pytorch: RuntimeError: kernel not found.\n"


def test_nothing_measured_prints_no_table(broken_erfnet, capsys):
    assert main(["fps", "erfnet", *TINY]) == 1
    assert capsys.readouterr().out == ""


def test_strict(monkeypatch):
    monkeypatch.setattr(fps, "warnings_of", lambda *_rounds, **_about: [])
    assert main(["fps", "fast-scnn", *TINY, "--strict"]) == 0
    monkeypatch.setattr(fps, "warnings_of", lambda *_rounds, **_about: ["unsteady"])
    assert main(["fps", "fast-scnn", *TINY]) == 0
    assert main(["fps", "fast-scnn", *TINY, "--strict"]) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["fps", "fastersge"], 2, "Did you mean fasterseg"),
        (["fps", "ssr", "--backend", "onnxrt"], 2, "unknown backend"),
        (["fps", "ssr", "--backend", "openvino:bf61"], 2, "--backend: unknown mode of openvino (got 'bf61'"),
        (["fps", "ssr", "--backend", "pytorch:chanels_last"], 2, "Did you mean channels_last"),
        (["fps", "ssr", "--backend", "pytorch:"], 2, "unknown mode of pytorch"),
        (["fps", "ssr", "--backend", "all:fp32"], 2, "`all` takes no mode"),
        (["fps", "ssr", "--backend", "pytorch,onnxrt"], 2, "unknown backend (got 'onnxrt'"),
        (["fps", "ssr", "--backend", "pytorch,"], 2, "unknown backend (got ''"),
        (["fps", "ssr", "--precision", "fp32,int4"], 2, "--precision: unknown precision (got 'int4'"),
        (["fps", "ssr", "--io", "lables"], 2, "unknown tensor contract"),
        (["fps", "ssr", "--resolution", "512"], 2, "not a resolution"),
        (["fps", "ssr", "--device", "npu"], 7, "no such device here"),
        (["fps", "ssr", "--rounds", "0"], 2, "--rounds"),
        (["fps", "ssr", "--batch", "0"], 2, "--batch"),
        (["fps", "ssr", "--mlperf", "--fasterseg"], 2, "--mlperf and --fasterseg: these are different protocols"),
        (["fps", "ssr", "--quick", "--mlperf"], 2, "these are different protocols"),
        (["fps", "ssr", "--duration", "5"], 2, "only single stream has a duration"),
        (["fps", "ssr", "--mlperf", "--duration", "nan"], 2, "not a duration (got nan"),
        (["fps", "ssr", "--mlperf", "--duration", "-1"], 2, "not a duration"),
        (["fps", "ssr", "--mlperf", "--rounds", "2"], 2, "single stream is one round"),
        (["fps", "ssr", "--mlperf", "--batch", "2"], 2, "one picture a query"),
        (["headline", "--resolution", "100x200"], 2, "does not take this size"),
        (["fps", "ssr", "--json", "-", "--csv", "-"], 2, "only one result can go to standard output"),
        (["fps", "ssr", "--json", "no/such/folder/f.json"], 4, "folder does not exist"),
        (["profile", "ssr", "--resolution", "100x200"], 2, "Use 104x200"),
        (["profile", "erf-net"], 2, "Did you mean erfnet"),
    ],
)
def test_refusals_come_before_any_measuring(arguments, code, words, capsys):
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err


def test_all_backends_are_those_that_run_here():
    everything = fps.runtimes_of(["all"])
    assert {"onnxruntime", "pytorch", "openvino"} <= {runtime.backend for runtime in everything}
    assert len({runtime.backend for runtime in everything}) == len(everything), "each in its default mode alone"
    assert fps.runtimes_of([]) == [fps.Runtime("onnxruntime", "default")]
    assert fps.runtimes_of(["pytorch", "pytorch:eager"]) == [fps.Runtime("pytorch", "eager")]


def test_backends_are_named_with_their_mode():
    found = fps.runtimes_of(["openvino:bf16", "pytorch:channels-last", "openvino"])
    assert [str(runtime) for runtime in found] == ["openvino:bf16", "pytorch:channels_last", "openvino"]
    assert found[2].mode == "fp32"
    assert fps.runtimes_of(["all", "openvino:bf16"])[-1] == found[0]


def test_auto_is_named_once_and_takes_no_mode():
    assert [str(runtime) for runtime in fps.runtimes_of(["auto", "auto", "openvino"])] == ["auto", "openvino"]
    assert fps.runtimes_of(["auto"], None, ["int8"]) == [fps.Runtime("auto", "auto", "int8")]
    for name in ("all", "auto"):
        with pytest.raises(UsageError, match=f"`{name}` takes no mode"):
            fps.runtimes_of([f"{name}:fp32"])


def test_auto_measures_what_was_chosen_network_by_network(monkeypatch, tmp_path, capsys):
    from deploy.automatic import Choice, Tried

    chosen = {"fast-scnn": ("pytorch", "channels_last"), "ssr-baseline1": ("openvino", "fp32")}
    asked = []

    def choose(model, *, device, threads):
        asked.append((model.network.name, device, threads))
        backend, mode = chosen[model.network.name]
        return Choice(backend, mode, (Tried(backend, mode, 1.25, precision="fp32"),))

    monkeypatch.setattr(fps, "choose", choose)
    target = tmp_path / "r.json"
    arguments = ["fps", *chosen, "--resolution", "64x128", "--threads", "1", "--backend", "auto,onnxruntime"]
    assert main([*arguments, "--json", str(target)]) == 0
    assert asked == [(name, None, 1) for name in chosen]
    tree = json.loads(target.read_text())
    found = [(m["network"]["name"], m["session"]["backend"], m["session"]["options"]) for m in tree["measurements"]]
    assert [(name, backend) for name, backend, _ in found] == [
        ("fast-scnn", "pytorch"),
        ("ssr-baseline1", "openvino"),
        ("fast-scnn", "onnxruntime"),
        ("ssr-baseline1", "onnxruntime"),
    ]
    assert found[0][2]["chosen_by_auto"] == "pytorch:channels_last, computes in fp32: 1.2 ms, measured now"
    assert "chosen_by_auto" not in found[2][2]


def test_where_auto_finds_nothing_the_rest_goes_on(monkeypatch, capsys):
    def choose(*_, **__):
        raise BackendUnavailableError("no backend here gives the right labels")

    monkeypatch.setattr(fps, "choose", choose)
    assert main(["fps", "fast-scnn", "--resolution", "64x128", "--backend", "auto,onnxruntime"]) != 0
    shown = capsys.readouterr()
    assert "fast-scnn on auto: no backend here gives the right labels" in shown.err
    assert "fast-scnn" in shown.out


def test_commas_and_repetition_mean_the_same(monkeypatch):
    asked = []

    def runtimes(arguments, device, precisions):
        asked.append((arguments, precisions))
        raise BackendUnavailableError("stop here")

    monkeypatch.setattr(fps, "runtimes_of", runtimes)
    main(["fps", "ssr", "--backend", "onnxruntime, openvino:bf16", "--backend", "aoti", "--precision", "fp32,fp16"])
    main(["fps", "ssr", "--backend", "onnxruntime", "--backend", "openvino:bf16,aoti", "--precision", "fp32,fp16"])
    assert asked == [(["onnxruntime", "openvino:bf16", "aoti"], ["fp32", "fp16"])] * 2


def test_every_backend_that_is_named_gets_every_precision():
    found = fps.runtimes_of(["openvino:bf16", "pytorch"], None, ["int8", "fp32"])
    assert [str(runtime) for runtime in found] == [
        "openvino:bf16 in int8",
        "openvino:bf16",
        "pytorch in int8",
        "pytorch",
    ]
    assert fps.runtimes_of([], None, ["fp16"]) == [fps.Runtime("onnxruntime", "default", "fp16")]


def test_all_is_in_the_precisions_that_a_backend_takes():
    found = fps.runtimes_of(["all"], None, ["fp32", "int8"])
    assert [r.precision for r in found if r.backend == "openvino"] == ["fp32", "int8"]
    assert [r.precision for r in found if r.backend == "pytorch"] == ["fp32"]
    assert "pytorch left out in int8: it runs models in fp32" in fps.left_out(None, ["fp32", "int8"])
    assert not [line for line in fps.left_out(None, ["fp32"]) if line.startswith("pytorch")]


def test_all_leaves_out_what_could_only_be_run_with_an_engine(monkeypatch):
    from deploy.backends import Unavailable
    from deploy.backends.aoti import AOTIBackend

    monkeypatch.setattr(AOTIBackend, "probe_build", lambda _: Unavailable("no compiler", "get one"))
    assert "aoti" not in {runtime.backend for runtime in fps.runtimes_of(["all"])}
    assert "aoti left out: no compiler; get one" in fps.left_out()


def test_all_leaves_out_what_has_no_such_device():
    with pytest.raises(BackendUnavailableError, match="no backend can measure here"):
        fps.runtimes_of(["all"], "npu")
    assert fps.runtimes_of(["all", "pytorch"], "npu") == [fps.Runtime("pytorch", "eager")]
    assert "openvino left out: it has no device npu here; give another --device" in fps.left_out("npu")
    assert fps.runtimes_of(["pytorch"], "npu") == [fps.Runtime("pytorch", "eager")], "what is named is tried"


def test_modes_take_turns_and_are_named_in_every_form(tmp_path, capsys):
    files = {name: str(tmp_path / name) for name in ("f.json", "f.csv", "f.md")}
    outputs = ["--json", files["f.json"], "--csv", files["f.csv"], "--markdown", files["f.md"]]
    arguments = ["--resolution", "64x128", "--quick", "--backend", "pytorch", "--backend", "pytorch:channels_last"]
    assert main(["fps", "fast-scnn", "fasterseg", *arguments, *outputs]) == 0
    shown = capsys.readouterr().out
    assert "pytorch:eager" in shown
    assert "pytorch:channels_last" in shown
    assert "(PyTorch CPU, fp32, threads: " in shown
    tree = json.loads((tmp_path / "f.json").read_text())
    found = [Measurement.from_tree(item) for item in tree["measurements"]]
    assert [m.runtime for m in found] == ["pytorch:eager"] * 2 + ["pytorch:channels_last"] * 2
    assert {m.precision for m in found} == {"fp32"}
    assert [item["mode"] for item in tree["statistics"]] == [*["eager"] * 2, *["channels_last"] * 2]
    fastersegs = [s for s in tree["statistics"] if s["network"] == "fasterseg"]
    assert [s["latency_over_fasterseg"] for s in fastersegs] == [1, 1], "each mode has its own reference"
    lines = list(csv.DictReader((tmp_path / "f.csv").open()))
    assert {(line["backend"], line["precision"]) for line in lines} == {("pytorch", "fp32")}
    assert {line["mode"] for line in lines} == {"eager", "channels_last"}
    assert (tmp_path / "f.md").read_text().count("pytorch:channels_last") == 2


def test_networks_and_runtimes_share_their_rounds(monkeypatch):
    """Two runtimes are compared in the same rounds, or a machine that slows down would slow one of them only."""
    from bench.timing import Timing

    seen = []

    def timed(runners, protocol, progress, *, timings, warmed):
        seen.append(len(runners))
        timings += [Timing([[1.0]], [[]]) for _ in runners]

    monkeypatch.setattr(fps, "time_interleaved", timed)
    two = ["--backend", "pytorch", "--backend", "pytorch:channels_last"]
    assert main(["fps", "fast-scnn", "fasterseg", "--resolution", "64x128", "--quick", *two]) == 0
    assert seen == [4]


def test_a_mode_that_cannot_run_here_leaves_the_rest(tmp_path, capsys):
    target = tmp_path / "f.json"
    assert main(["fps", "fast-scnn", *TINY, "--backend", "onnxruntime:tensorrt", "--json", str(target)]) == 7
    captured = capsys.readouterr()
    assert "fast-scnn on onnxruntime:tensorrt: the mode tensorrt of onnxruntime needs a CUDA device" in captured.err
    tree = json.loads(target.read_text())
    assert [m["session"]["backend"] for m in tree["measurements"]] == ["pytorch"]
    assert tree["failures"][0]["mode"] == "tensorrt"


@pytest.mark.slow
def test_a_precision_that_a_backend_does_not_take_leaves_the_rest(tmp_path, capsys):
    files = {name: tmp_path / name for name in ("f.json", "f.md")}
    outputs = ["--json", str(files["f.json"]), "--markdown", str(files["f.md"])]
    assert main(["fps", "fast-scnn", *TINY, "--backend", "onnxruntime", "--precision", "fp16", *outputs]) == 2
    said = "every network on pytorch in fp16: backend pytorch does not run models of this precision"
    assert said in capsys.readouterr().err
    tree = json.loads(files["f.json"].read_text())
    (found,) = (Measurement.from_tree(item) for item in tree["measurements"])
    assert (found.runtime, found.precision) == ("onnxruntime", "fp16")
    assert tree["failures"][0]["precision"] == "fp16"
    table, missing = files["f.md"].read_text().split("\nNot measured:\n\n")
    assert "| fp16 | onnxruntime |" in table
    assert missing.startswith(f"- {said}")


@pytest.mark.slow
def test_int8_is_of_the_quantised_graph(tmp_path, capsys):
    target = tmp_path / "f.json"
    both = ["--backend", "onnxruntime,openvino", "--precision", "int8,fp32"]
    assert main(["fps", "fast-scnn", "--resolution", "64x128", "--quick", *both, "--json", str(target)]) == 0
    found = [Measurement.from_tree(item) for item in json.loads(target.read_text())["measurements"]]
    assert [(m.session.backend, m.precision) for m in found] == [
        *(("onnxruntime", "int8"), ("onnxruntime", "fp32")),
        *(("openvino", "int8"), ("openvino", "fp32")),
    ]
    assert "8 " in found[2].session.options["kernels"], "integers, as OpenVINO itself says"
    assert found[0].artifact_sha256 == found[2].artifact_sha256 != found[1].artifact_sha256


def test_one_export_serves_all_runtimes_and_only_those_that_run_it_name_it(monkeypatch, tmp_path):
    exports = []
    export = deployable.export_onnx
    monkeypatch.setattr(deployable, "export_onnx", lambda *args, **kwargs: exports.append(1) or export(*args, **kwargs))
    target = tmp_path / "f.json"
    several = ["--backend", "onnxruntime,pytorch,openvino", "--json", str(target)]
    assert main(["fps", "fast-scnn", "--resolution", "64x128", "--quick", *several]) == 0
    assert len(exports) == 1
    found = [Measurement.from_tree(item) for item in json.loads(target.read_text())["measurements"]]
    assert [m.session.backend for m in found] == ["onnxruntime", "pytorch", "openvino"]
    assert found[1].artifact_sha256 is None
    assert found[0].artifact_sha256 == found[2].artifact_sha256 is not None


def test_a_backend_that_is_not_installed_leaves_the_rest(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main(["fps", "fast-scnn", *TINY, "--backend", "openvino:bf16"]) == 7
    captured = capsys.readouterr()
    assert "fast-scnn" in captured.out
    assert "every network on openvino:bf16: backend openvino is not available here" in captured.err
    assert captured.err.endswith("Pip install openvino.\n")


def test_profile(tmp_path, capsys):
    target = tmp_path / "p.json"
    assert main(["profile", "ssr", "--resolution", "128x256", "--json", str(target)]) == 0
    shown = capsys.readouterr().out
    for words in ("1,022,559", "stage8.9", "Not counted by fvcore", "aten::max_pool2d x5", "print them as FLOPs"):
        assert words in shown
    tree = json.loads(target.read_text())
    assert (tree["schema"], tree["params"], tree["resolution"]) == (1, 1_022_559, "128x256")
    assert main(["profile", "ssr", "--resolution", "128x256", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == tree

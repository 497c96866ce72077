import csv
import io
import json
import subprocess
import sys

import pytest

from bench import fps
from bench.cli import main
from bench.measurement import Measurement, Protocol
from deploy import deployable
from deploy.backends.pytorch import PyTorchBackend, PyTorchSession
from searchkit.weights import Weights

TINY = ["--resolution", "64x128", "--quick", "--backend", "pytorch"]


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """What is tested here is the way through, not the figures: few runs, and weights that take no time to draw."""
    short = Protocol(warmup_ms=0, min_warmup_runs=1, rounds=2, round_ms=0, min_runs_per_round=1, settle_ms=0)
    monkeypatch.setattr(Protocol, "quick", lambda: short)
    monkeypatch.setattr(deployable, "seed_weights", lambda *_args, **_kwargs: Weights(False, "untrained"))


@pytest.fixture
def broken_erfnet(monkeypatch):
    """A backend on which one network opens and then fails at its first run."""
    opened = PyTorchBackend.open

    class Broken(PyTorchSession):
        def execute(self):
            raise RuntimeError("kernel not found\nin a stack trace of the runtime")

    def open_(self, model, *, device=None, threads=None):
        session = opened(self, model, device=device, threads=threads)
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
    assert list(tree) == ["schema", "machine", "measurements", "failures", "statistics"]
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
    monkeypatch.setattr(fps, "warnings_of", lambda *_rounds: [])
    assert main(["fps", "fast-scnn", *TINY, "--strict"]) == 0
    monkeypatch.setattr(fps, "warnings_of", lambda *_rounds: ["unsteady"])
    assert main(["fps", "fast-scnn", *TINY]) == 0
    assert main(["fps", "fast-scnn", *TINY, "--strict"]) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["fps", "fastersge"], 2, "Did you mean fasterseg"),
        (["fps", "ssr", "--backend", "onnxrt"], 2, "unknown backend"),
        (["fps", "ssr", "--io", "lables"], 2, "unknown tensor contract"),
        (["fps", "ssr", "--resolution", "512"], 2, "not a resolution"),
        (["fps", "ssr", "--device", "npu"], 7, "no such device here"),
        (["fps", "ssr", "--rounds", "0"], 2, "--rounds"),
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
    assert {"onnxruntime", "pytorch"} <= set(fps.backends_of(["all"]))
    assert fps.backends_of([]) == ["onnxruntime"]
    assert fps.backends_of(["pytorch", "pytorch"]) == ["pytorch"]


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

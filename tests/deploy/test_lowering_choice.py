"""`--lowering`: which rewrites are chosen, what the bundle says of it, and that precisions follow."""

from __future__ import annotations

import copy
import json

import onnx
import pytest

from deploy.backends import BACKENDS, Available, Backend, Session, SessionInfo
from deploy.bundle import read_bundle, write_bundle
from deploy.bundled import BundledModel
from deploy.deployable import Deployable
from deploy.export import export
from deploy.lowering import REWRITES, Rewrite, choice, rewritten
from deploy.lowering.choice import AUTO, PLAIN, Lowering, choose
from deploy.lowering.record import check_record, record, sentence
from deploy.lowering.timing import Quartiles, take_turns
from deploy.precision.calibration import Calibration
from deploy.prove import prove
from searchkit import strict_json
from searchkit.cli import app
from searchkit.console import run
from searchkit.data import open_dataset
from searchkit.errors import DamagedArtifactError, UsageError
from searchkit.files import sha256_bytes
from searchkit.sizes import Size

SIZE = Size(32, 64)
INFO = SessionInfo("onnxruntime", "1.0", "CPUExecutionProvider", "cpu", {"threads": "2"})
# Blocks of unequal widths, so that several rewrites apply.
UNEQUAL = {
    "stages": [
        {"channels": 12, "layers": []},
        {"channels": 16, "layers": [{"dilation": 1, "spatial": 1, "mid": 16, "out": out} for out in (12, 20)]},
    ],
}


@pytest.fixture(scope="module")
def network(tiny_network):
    return tiny_network(**UNEQUAL)


@pytest.fixture(scope="module")
def plain(network):
    return Deployable(network, SIZE, "labels")


def quietly(_text):
    pass


def timed(speeds):
    """A measurement in which each model takes 1 / the product of the speeds of its rewrites; `wins` a model's round."""
    seen = []

    def measure(models):
        seen.append(list(models))
        base = [100.0, 104.0, 96.0, 100.0]
        times = {}
        for name in models:
            speed = speeds.get(name, 1.0)
            times[name] = tuple(ms / (speed[i] if isinstance(speed, list) else speed) for i, ms in enumerate(base))
        return times, INFO

    return measure, seen


def test_the_fastest_is_kept_until_nothing_is_faster(plain):
    measure, seen = timed({"downsampler": 1.5, "prefix-addition": 2.0, "prefix-convolution": 1.9, AUTO: 3.0})
    found = choose(plain, plain.onnx, measure, quietly)
    assert found.applied == ("prefix-addition", "downsampler")
    assert found.model == rewritten(plain.onnx, found.applied)[0]
    assert [step.kept for step in found.measured.steps] == ["prefix-addition", "downsampler"]
    assert seen[0] == [PLAIN, "downsampler", "prefix-addition", "prefix-convolution", "prefix-padding"]
    # What one rewrite did leaves the other forms of the same residual nothing to do.
    assert "prefix-convolution" not in seen[1]
    assert seen[-1] == [PLAIN, AUTO]
    assert found.measured.whole.ratio(AUTO) == Quartiles(3.0, 3.0, 3.0)


def test_one_that_is_not_faster_by_its_lower_quartile_is_not_kept(plain):
    measure, _ = timed({"downsampler": [1.0, 3.0, 3.0, 3.0], "prefix-addition": [0.9, 0.9, 3.0, 3.0]})
    found = choose(plain, plain.onnx, measure, quietly)
    assert found.measured.steps[0].ratio("prefix-addition").median > 1.9
    assert found.measured.steps[0].kept == "downsampler"
    measure, seen = timed({"downsampler": 1.0})
    found = choose(plain, plain.onnx, measure, quietly)
    assert (found.applied, found.model, found.measured.whole, len(seen)) == ((), plain.onnx, None, 1)


def test_what_is_slower_as_a_whole_is_not_kept(plain):
    measure, _ = timed({"downsampler": 1.5, AUTO: 0.99})
    found = choose(plain, plain.onnx, measure, quietly)
    assert (found.applied, found.model) == ((), plain.onnx)
    assert found.measured.whole is not None
    assert "no rewrite is faster" in sentence(record(found))


def test_one_that_is_another_function_is_not_kept(plain, monkeypatch):
    def wrong(model):
        tree = onnx.load_from_string(model)
        weights = [t for t in tree.graph.initializer if len(t.dims) == 4][-1]
        weights.raw_data = (-onnx.numpy_helper.to_array(weights)).tobytes()
        return tree.SerializeToString()

    load = REWRITES.load
    broken = {"whole-vectors": Rewrite(wrong)}
    monkeypatch.setattr(type(REWRITES), "load", lambda self, name: broken.get(name) or load(name))
    measure, _ = timed({"whole-vectors": 2.0, "downsampler": 1.5, AUTO: 1.5})
    found = choose(plain, plain.onnx, measure, quietly)
    assert found.applied == ("downsampler",)
    assert found.measured.steps[0].wrong == ("whole-vectors",)


def test_a_network_without_anything_to_rewrite(plain, monkeypatch):
    monkeypatch.setattr(choice, "_candidates", lambda current, applied: {})
    found = choose(plain, plain.onnx, lambda models: pytest.fail("nothing to measure"), quietly)
    assert (found.applied, found.model, found.measured) == ((), plain.onnx, None)
    assert record(found)["measured"] is None


class Slow(Session):
    """Writes down who ran, and in which state."""

    info = INFO

    def __init__(self, model, log):
        self.model, self.log = model, log

    def load(self, batch):
        self.log.append(("load", self.model.onnx, batch.shape))

    def execute(self):
        self.log.append(("execute", self.model.onnx))

    def synchronize(self):
        self.log.append(("synchronize", self.model.onnx))

    def output(self):
        raise AssertionError

    def close(self):
        self.log.append(("close", self.model.onnx))


class Fake(Backend):
    name = "fake"

    def __init__(self):
        self.log, self.opened = [], []

    def probe(self):
        return Available("1", ("cpu",))

    def open(self, model, *, device=None, threads=None, mode=None):
        self.opened.append((device, threads, mode))
        return Slow(model, self.log)


def test_models_take_turns(plain):
    backend = Fake()
    models = {name: choice.Rewritten(plain, name.encode()) for name in "abc"}
    times, info = take_turns(models, backend, mode="bf16", threads=2, rounds=4)
    assert info is INFO
    assert backend.opened == [(None, 2, "bf16")] * 3
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4, "c": 4}
    assert all(value > 0 for values in times.values() for value in values)
    ran = [entry[1].decode() for entry in backend.log if entry[0] == "execute"]
    # Three of each to warm up; then turns of four, each round begun by the next.
    assert "".join(ran[9:]) == "aaaabbbbccccbbbbccccaaaaccccaaaabbbbaaaabbbbcccc"
    assert [entry[0] for entry in backend.log[-3:]] == ["close"] * 3
    kinds = [entry[0] for entry in backend.log]
    assert all(kinds[i + 1] == "synchronize" for i, kind in enumerate(kinds) if kind == "execute")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("prefix-adition",), "prefix-addition"),
        (("downsampler,downsampler",), "twice"),
        (("",), "rewrite"),
        (("auto,downsampler",), "rewrite"),
        (("none", "onnxruntime"), "without one"),
        (("downsampler", None, 2), "without one"),
        (("auto", "pytorch"), "not rewritten"),
        (("auto", "onnxruntim"), "onnxruntime"),
    ],
)
def test_words_that_make_no_sense(words, problem):
    with pytest.raises(UsageError, match=problem):
        Lowering.parse(*words)


def test_words():
    assert Lowering.parse("none") is None
    assert Lowering.parse("downsampler,prefix_addition") == Lowering(("downsampler", "prefix-addition"))
    assert Lowering.parse("auto") == Lowering(None, "onnxruntime", None, None)
    assert Lowering.parse("auto", "openvino:bf16", 2) == Lowering(None, "openvino", "bf16", 2)


def test_every_rewrite_says_what_it_is():
    for name in REWRITES.names():
        assert REWRITES.summary(name).endswith(".")
        assert isinstance(REWRITES.load(name), Rewrite)


def test_nothing_changes_unless_asked(plain, network):
    assert Deployable(network, SIZE, "labels").onnx == plain.onnx
    assert plain.lowering_record is None
    assert plain.lowering.applied == ()


def test_auto_measures_here(network):
    told = []
    lowering = Lowering(threads=1, rounds=2, tell=told.append)
    model = Deployable(network, SIZE, "labels", lowering=lowering)
    assert model.onnx == rewritten(Deployable(network, SIZE, "labels").onnx, model.lowering.applied)[0]
    tree = strict_json.loads(json.dumps(model.lowering_record).encode(), where="x")
    assert check_record(tree, where="x") == model.lowering_record
    measured = tree["measured"]
    assert (measured["backend"], measured["rounds"], measured["precision"]) == ("onnxruntime", 2, "fp32")
    assert measured["options"]["threads"] == "1"
    assert set(measured["steps"][0]["times_as_fast"]) >= {"downsampler", "prefix-addition"}
    assert told[0].startswith("measuring downsampler, ")


NAMED = ("downsampler", "late-resize", "prefix-addition")


@pytest.fixture(scope="module")
def bundle(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("lowered") / "bundle"
    exported = export(Deployable(network, SIZE, "labels", lowering=Lowering(NAMED)), path)
    assert exported.report.passed
    return read_bundle(path)


def test_a_bundle_says_which_rewrites_it_has(bundle, plain):
    model = BundledModel(bundle)
    assert model.onnx == rewritten(plain.onnx, NAMED)[0] != plain.onnx
    # There is no resize to be late.
    assert model.lowering_record == {"schema": 1, "applied": ["downsampler", "prefix-addition"], "measured": None}
    text = "downsampler, prefix-addition, as asked for; nothing was measured"
    assert f"| rewrites | {text} |\n" in bundle.files["README.md"].decode()
    proof = prove(bundle)
    assert not proof.problems
    assert [check.text for check in proof.checks if check.name == "rewrites"] == [text]


def test_a_damaged_record_is_refused(bundle, tmp_path):
    files = dict(bundle.files)
    for tree in ({"schema": 2}, [], {"schema": 1, "applied": ["../x"], "measured": None}):
        write_bundle(tmp_path / "b", files | {"lowering.json": json.dumps(tree).encode()})
        with pytest.raises(DamagedArtifactError, match="not the record of a lowering"):
            prove(read_bundle(tmp_path / "b"))


@pytest.fixture(scope="module")
def tree(plain):
    measure, _ = timed({"downsampler": 1.5, AUTO: 1.4})
    return record(choose(plain, plain.onnx, measure, quietly))


def leaves(tree, path=()):
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from leaves(value, (*path, key))


def test_each_field_of_a_record_is_checked(tree):
    assert check_record(copy.deepcopy(tree), where="x") == tree
    paths = [path for path in leaves(tree) if not isinstance(path[-1], int)]
    assert len(paths) > 30
    for path in paths:
        for damage in ("remove", "replace", "add"):
            damaged = copy.deepcopy(tree)
            place = damaged
            for key in path[:-1]:
                place = place[key]
            free = path[-2:-1] in (("options",), ("times_as_fast",))
            if damage == "remove" and not free:
                del place[path[-1]]
            elif damage == "replace":
                place[path[-1]] = {"x": -1}
            elif damage == "add" and not free:
                place["surplus"] = 1
            else:
                continue
            try:
                check_record(damaged, where="x")
            except DamagedArtifactError:
                continue
            pytest.fail(f"{damage} at {path} is not noticed")


def test_a_record_in_words(tree):
    assert sentence(tree).startswith("downsampler: 1.40 times as fast as plain (quartiles 1.40 to 1.40) with onnxrun")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_precisions_are_made_of_the_rewritten_model(network, tmp_path, precision):
    learning = Calibration(open_dataset("streets", size=SIZE), method="minmax", pictures=2)
    names = ("downsampler", "prefix-addition")
    model = Deployable(
        network,
        SIZE,
        "labels",
        precision=precision,
        calibration=learning if precision == "int8" else None,
        lowering=Lowering(names),
    )
    exported = export(model, tmp_path / "b")
    assert exported.report.passed
    assert model.lowering.applied == names
    kept = model.precision_record["kept"]
    assert kept == [], "nothing that is rewritten spoils a precision"
    bundle = read_bundle(tmp_path / "b")
    assert bundle.json("precision.json")["model_sha256"] == sha256_bytes(bundle.files["model.onnx"])
    assert not prove(bundle).problems


def test_the_command(tmp_path, tiny, capsys):
    network = str(tiny(**UNEQUAL))
    words = ["export", network, "--resolution", "32x64", "-o", str(tmp_path / "b"), "--json", str(tmp_path / "x.json")]
    assert run(app, [*words, "--lowering", "downsampler,prefix-addition"]) == 0
    assert "rewrites: downsampler, prefix-addition, as asked for" in capsys.readouterr().out
    assert json.loads((tmp_path / "x.json").read_text())["lowering"]["applied"] == ["downsampler", "prefix-addition"]
    assert run(app, words) == 0
    assert json.loads((tmp_path / "x.json").read_text())["lowering"] is None
    assert "lowering.json" not in read_bundle(tmp_path / "b").files
    assert run(app, [*words, "--lowering", "downsampling"]) == 2
    assert "downsampler" in capsys.readouterr().err


def test_openvino_measures_too(network):
    assert BACKENDS.load("openvino").runs_onnx
    lowering = Lowering.parse("auto", "openvino", 1)
    model = Deployable(network, SIZE, "raw", lowering=Lowering(None, lowering.backend, lowering.mode, 1, rounds=2))
    assert model.lowering_record["measured"]["backend"] == "openvino"
    assert set(model.lowering_record["measured"]["steps"][0]["times_as_fast"]) >= {"downsampler", "prefix-addition"}

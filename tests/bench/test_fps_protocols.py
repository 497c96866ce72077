"""What `bench fps` and `bench headline` record of how they timed, and what is left when something ends a run early."""

import json

import pytest

from bench.cli import main
from bench.measurement import Measurement
from bench.protocol import Timed
from bench.result_file import read_results
from deploy.backends.pytorch import PyTorchSession
from searchkit.console import Terminated

TINY = ["--resolution", "64x128", "--quick", "--backend", "pytorch"]

pytestmark = pytest.mark.usefixtures("brief")


def test_a_batch_is_pictures_a_call(tmp_path, capsys):
    target = tmp_path / "f.json"
    several = ["--resolution", "64x128", "--quick", "--backend", "pytorch,onnxruntime,openvino", "--batch", "3"]
    assert main(["fps", "fast-scnn", *several, "--json", str(target)]) == 0
    assert "FPS is 3 pictures a call x 1000 / p50" in capsys.readouterr().out
    tree = json.loads(target.read_text())
    found = [Measurement.from_tree(item) for item in tree["measurements"]]
    assert [m.timed.batch for m in found] == [3, 3, 3]
    for row, m in zip(tree["statistics"], sorted(found, key=lambda m: tree_order(tree, m)), strict=True):
        assert row["fps"] == pytest.approx(3000 / m.statistics.p50_ms)


def tree_order(tree, measurement):
    return [row["backend"] for row in tree["statistics"]].index(measurement.session.backend)


def test_what_takes_one_picture_only_refuses_a_batch_and_leaves_the_rest(capsys):
    refused = ["--backend", "auto,onnxruntime:label_head", "--batch", "2"]
    assert main(["fps", "fast-scnn", *TINY, *refused]) == 2
    captured = capsys.readouterr()
    assert "`auto` chooses by one picture a call (got 2; allowed: 1)" in captured.err
    assert "native label head of onnxruntime:label_head takes one picture a call" in captured.err
    assert "fast-scnn" in captured.out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], Timed()),
        (["--transfers"], Timed(transfers=True)),
        (["--processing"], Timed(transfers=True, preprocessing="on the host", postprocessing="on the host")),
        (["--io", "labels"], Timed(preprocessing="in the graph", postprocessing="in the graph")),
        (["--io", "labels", "--processing"], Timed(1, "wall", True, "in the graph", "in the graph")),
    ],
)
def test_what_was_timed_is_stated_on_the_result_and_to_people(options, expected, tmp_path, capsys):
    target = tmp_path / "f.json"
    assert main(["fps", "fast-scnn", *TINY, *options, "--json", str(target)]) == 0
    (found,) = (Measurement.from_tree(item) for item in json.loads(target.read_text())["measurements"])
    assert found.timed == expected
    assert found.protocol.timed == expected.text
    assert f"Timed: {expected.text}" in " ".join(capsys.readouterr().out.split())


def test_single_stream_of_another_length_says_so(tmp_path, capsys):
    target = tmp_path / "f.json"
    tiny = ["fps", "fast-scnn", "--resolution", "64x128", "--backend", "pytorch", "--mlperf", "--duration", "0.01"]
    assert main([*tiny, "--json", str(target)]) == 0
    shown = capsys.readouterr().out
    assert "Not MLPerf's protocol" in shown
    assert "90th percentile by early stopping" in shown
    tree = json.loads(target.read_text())
    (found,) = (Measurement.from_tree(item) for item in tree["measurements"])
    assert (found.protocol.name, len(found.rounds_ms)) == ("single stream", 1)
    assert len(found.samples_ms) >= 64
    assert tree["statistics"][0]["single_stream_p90_ms"] in found.samples_ms


def stop_after(monkeypatch, rounds, error):
    """Every session runs until this many rounds are finished, and then something happens."""
    from bench import timing

    turn, done = timing._turn, []

    def hit(*arguments):
        if len(done) == rounds:
            raise error
        turn(*arguments)
        done.append(1)

    monkeypatch.setattr(timing, "_turn", hit)


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143)])
def test_an_interrupt_keeps_what_was_finished_and_says_so(error, code, monkeypatch, tmp_path, capsys):
    stop_after(monkeypatch, 3, error)
    files = {name: tmp_path / name for name in ("f.json", "f.md")}
    outputs = ["--json", str(files["f.json"]), "--markdown", str(files["f.md"])]
    assert main(["fps", "fast-scnn", "fasterseg", *TINY, *outputs]) == code
    captured = capsys.readouterr()
    assert "finished rounds are kept and written; the result is partial" in captured.err
    assert "only 1 of 2 rounds were finished" in captured.out
    found = read_results(files["f.json"])
    assert not found.complete
    assert [len(m.rounds_ms) for m in found.measurements] == [1, 2], "in the second round the second one goes first"
    assert "Partial: the run was interrupted" in files["f.md"].read_text()


def test_an_interrupt_before_the_first_round_leaves_nothing(monkeypatch, tmp_path, capsys):
    stop_after(monkeypatch, 0, KeyboardInterrupt())
    target = tmp_path / "f.json"
    assert main(["fps", "fast-scnn", *TINY, "--json", str(target)]) == 130
    assert not target.exists()
    assert capsys.readouterr().out == ""


def test_a_cell_without_a_finished_round_is_a_failure(monkeypatch, tmp_path):
    stop_after(monkeypatch, 1, KeyboardInterrupt())
    target = tmp_path / "f.json"
    assert main(["fps", "fast-scnn", "fasterseg", *TINY, "--json", str(target)]) == 130
    found = read_results(target)
    assert [m.network.name for m in found.measurements] == ["fast-scnn"]
    (failed,) = found.failures
    assert failed.network == "fasterseg"
    assert "interrupted before its first round" in failed.problem


def test_a_device_that_vanishes_in_mid_run_leaves_what_was_finished(monkeypatch, tmp_path, capsys):
    """After such an error nothing on the device works any more, closing the sessions included."""
    stop_after(monkeypatch, 2, RuntimeError("CUDA error: unspecified launch failure"))

    def close(self):
        raise RuntimeError("CUDA error: device is gone")

    monkeypatch.setattr(PyTorchSession, "close", close)
    target = tmp_path / "f.json"
    assert main(["fps", "fast-scnn", "fasterseg", *TINY, "--json", str(target)]) == 1
    assert "unspecified launch failure; 1 rounds are kept" in capsys.readouterr().err
    found = read_results(target)
    assert found.complete, "nobody interrupted it"
    assert [len(m.rounds_ms) for m in found.measurements] == [1, 1]
    assert all("only 1 of 2 rounds" in " ".join(m.warnings) for m in found.measurements)
    assert [failed.network for failed in found.failures] == ["fast-scnn", "fasterseg"]


def test_memory_and_conditions_are_recorded(tmp_path):
    target = tmp_path / "f.json"
    assert main(["fps", "fasterseg-teacher", *TINY, "--json", str(target)]) == 0
    (found,) = read_results(target).measurements
    assert found.memory.how.startswith("growth of the process's resident memory")
    # Its weights alone are 85 MiB in float32.
    assert found.memory.peak_bytes > 60 * 2**20
    assert found.conditions.others_cores is None or found.conditions.others_cores >= 0
    assert found.warm_up.runs >= 1


def test_headline_compares_both_ways_and_names_the_papers(tmp_path, capsys):
    target = tmp_path / "h.json"
    assert main(["headline", "--resolution", "64x128", "--quick", "--json", str(target)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "175 to 105 FPS, SSR 1.67 times as fast, published, RTX 2080 Ti, PyTorch" in shown
    assert "53 to 105 FPS, SSR 0.50 times as fast, so the slower one, published" in shown
    tree = json.loads(target.read_text())
    found = read_results(target).measurements
    assert {(m.network.name, str(m.resolution)) for m in found} == {
        (name, size) for name in ("ssr", "fasterseg") for size in ("32x64", "64x128")
    }
    assert [(c["ssr_resolution"], c["fasterseg_resolution"]) for c in tree["headline"]] == [
        ("32x64", "64x128"),
        ("64x128", "64x128"),
        ("32x64", "32x64"),
    ]
    assert [c["paper_speed"] for c in tree["headline"]] == [pytest.approx(175 / 105), pytest.approx(53 / 105), None]

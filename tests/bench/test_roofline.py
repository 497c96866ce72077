"""The limit by hand, the published pairs held to it, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from bench import pairs, peaks
from bench.cli import main
from bench.devices import find
from bench.layers import Layer
from bench.pairs import LAYERS, OTHER, Counted, counted, hold, read_counted
from bench.peaks import Peaks, Rate
from bench.roofline import Roof, bound, limit
from bench.roofline_text import digits
from searchkit.errors import InputFileError, UsageError
from searchkit.footprint import on_meta
from searchkit.networks import resolve
from searchkit.sizes import Size

DOCUMENT = Path(__file__).parents[2] / "docs" / "roofline.md"
ROOF = Roof("toy", "Toy", "fp32", 1e9, 1e9, "by hand")
COMPUTE = Layer("a", "Conv", ("a",), 4_000_000, 500_000, 250_000, 250_000)
MEMORY = Layer("b", "Resize", ("b",), 0, 0, 1_000_000, 2_000_000)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(peaks, "QUICK_SIZES", (64,))
    monkeypatch.setattr(peaks, "QUICK_COPY_BYTES", (1 << 16,))


def test_a_layer_is_bound_by_the_slower_of_arithmetic_and_traffic():
    first, second = bound(COMPUTE, ROOF), bound(MEMORY, ROOF)
    assert (first.compute_ms, first.memory_ms, first.limit_ms, first.by) == (4, 1, 4, "compute")
    assert (second.compute_ms, second.memory_ms, second.limit_ms, second.by) == (0, 3, 3, "memory")


def test_a_network_is_the_sum_of_its_layers():
    found = limit([COMPUTE, MEMORY], ROOF)
    assert found.ms == 7
    assert found.fps == pytest.approx(1000 / 7)
    assert found.memory_share == pytest.approx(3 / 7)
    assert found.by == "compute"
    assert [entry.layer.name for entry in found.largest(1)] == ["a"]
    tree = found.to_tree()
    assert (tree["limit_ms"], tree["layers"][1]["bound_by"]) == (7, "memory")


def test_a_device_has_two_operations_a_mac_and_a_machine_has_what_it_reached():
    roof = Roof.of_device(find("gtx1080ti"), "fp32")
    assert (roof.macs_per_s, roof.bytes_per_s) == (11.34e12 / 2, 484e9)
    here = Roof.of_peaks(Peaks("cpu", 2, (Rate("fp32", 8, 5.0, 1), Rate("copy", 8, 3.0, 1)), {}), "fp32")
    assert (here.device, here.macs_per_s, here.bytes_per_s) == ("here", 5.0, 3.0)
    assert here.source == "measured here"


def test_limits_agree_with_an_independent_count():
    """FPS limits that were counted apart from this code, per convolution, pool and resize, for the published pairs."""
    wanted = {
        ("fasterseg", "1024x2048", "gtx1080ti"): 179,
        ("bisenetv2", "512x1024", "gtx1080ti"): 212,
        ("ssr", "512x1024", "rtx2080ti"): 530,
        ("ddrnet-23-slim", "1024x2048", "rtx3090"): 411,
        ("swiftnet-r18", "1024x2048", "gtx1080ti"): 52,
        ("erfnet", "512x1024", "titanx-maxwell"): 120,
    }
    ours = {(h.pair.network, str(h.pair.resolution), h.pair.device): h.limit_fps for h in hold()[0]}
    for key, fps in wanted.items():
        assert ours[key] == pytest.approx(fps, rel=0.05)


def test_every_share_is_one_a_device_can_reach():
    held, families, _ = hold()
    assert all(0 < entry.share <= 1 for entry in held)
    assert {family.name: family.pairs for family in families} == {"PyTorch": 12, "TensorRT": 7}


def test_what_is_left_out_says_why():
    left_out = "\n".join(hold()[2])
    assert "bisenetv2, SSR paper: measured on another network: it prints 51.9 GMACs" in left_out
    assert "which device `Titan X` is" in left_out


def test_a_pair_is_predicted_from_other_networks_alone():
    held, families, _ = hold()
    by_family = {family.name: family for family in families}
    mine = [entry for entry in held if entry.pair.family == "TensorRT"]
    target = next(entry for entry in mine if entry.pair.network == "fasterseg")
    others = [entry.share for entry in mine if entry.pair.network != "fasterseg"]
    share = math.exp(sum(map(math.log, others)) / len(others))
    assert target.predicted_fps == pytest.approx(target.limit_fps * share)
    errors = [max(entry.error, 1 / entry.error) for entry in mine]
    assert by_family["TensorRT"].worst_error == max(errors)
    assert by_family["TensorRT"].typical_error == pytest.approx(math.exp(sum(map(math.log, errors)) / len(errors)))
    assert all(entry.error is None for entry in held if entry.pair.family == OTHER)


@pytest.mark.parametrize("entry", counted().values(), ids=lambda entry: f"{entry.network}-{entry.resolution}")
def test_counted_layers_are_of_the_networks_as_they_are(entry):
    network = resolve(entry.network)
    assert entry.digest == network.digest, "count again: bench roofline --recount bench/published_layers.json"
    # Adaptive pools are exported as convolutions, which adds up to 1 %.
    dispatched = on_meta(network.build_on_meta(), entry.resolution).conv_macs
    assert 1 <= sum(macs for macs, _ in entry.layers) / dispatched < 1.01


def test_a_count_is_what_the_file_holds():
    wanted = counted()["enet", Size(360, 640)]
    assert pairs.count([("enet", wanted.resolution)], lambda text: None) == [wanted]


def test_the_file_is_as_it_would_be_written():
    assert LAYERS.read_text(encoding="utf-8") == pairs.counted_text(list(counted().values()))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "an object"),
        (b'{"schema": 2, "io": "logits", "counted": []}', "another schema"),
        (b'{"schema": 1, "io": "logits"}', "missing field"),
        (b'{"schema": 1, "io": "logits", "counted": [], "more": 1}', "unknown field"),
        (b"\xff", "not valid JSON"),
    ],
)
def test_damaged_counts_are_refused(data, problem):
    with pytest.raises(InputFileError, match=problem):
        read_counted(data, "layers.json")


@pytest.mark.parametrize("rows", [(), ((1,),), ((1, -1),), ((1, 0),)])
def test_layers_that_are_none_are_refused(rows):
    text = pairs.counted_text([Counted("toy", "00", Size(64, 128), rows)])
    with pytest.raises(InputFileError, match="wrong layers"):
        read_counted(text.encode(), "layers.json")


@pytest.mark.parametrize("data", [b"\xff", b"[", b"a = 1", b"network = 3", b"network = [1]"])
def test_damaged_published_figures_are_refused(data):
    with pytest.raises(InputFileError, match="not a file of published figures"):
        pairs.pairs(data)


def test_a_published_rate_below_zero_is_refused():
    text = '[[network]]\nname = "toy"\n[[network.published]]\nof = "x"\nfps = -1.0\ndevice = "V100"\nsize = "8x8"\n'
    with pytest.raises(InputFileError, match="above 0 FPS"):
        pairs.pairs(text.encode())


def test_here_both_sides_are_measured(small, tmp_path, capsys):
    target = tmp_path / "roofline.json"
    arguments = ["--resolution", "64x128", "--quick", "--threads", "1", "--json", str(target)]
    assert main(["roofline", "fast-scnn", *arguments]) == 0
    text = capsys.readouterr().out
    assert "Measured here on cpu, 1 threads" in text
    assert "lose most against the limit" in text
    tree = json.loads(target.read_text())
    (result,) = tree["here"]["results"]
    assert result["attained"] == pytest.approx(result["limit"]["limit_ms"] / result["measured_p50_ms"])
    assert result["layer_times"]["rows"]
    assert "elsewhere" not in tree


def test_elsewhere_is_predicted_with_its_error(tmp_path, capsys):
    target = tmp_path / "roofline.json"
    arguments = ["--resolution", "64x128", "--device", "gtx1080ti,h200", "--json", str(target)]
    assert main(["roofline", "fast-scnn", *arguments]) == 0
    text = capsys.readouterr().out
    assert "Predicted, not measured" in text
    assert "off by a factor of" in text
    assert "No published pair is on H200 SXM in fp32" in text
    tree = json.loads(target.read_text())
    inside = [r["predicted"][0]["inside_what_the_error_was_found_on"] for r in tree["elsewhere"]["results"]]
    assert inside == [True, False]
    assert "here" not in tree


def test_a_device_without_the_precision_is_refused_alone_and_left_out_among_several(capsys):
    arguments = ["roofline", "fast-scnn", "--resolution", "64x128", "--precision", "fp16"]
    assert main([*arguments, "--device", "titanxp"]) == 2
    assert main([*arguments, "--device", "all", "--top", "0"]) == 0
    captured = capsys.readouterr()
    assert "titanxp left out" in captured.err
    assert "RTX 2080 Ti" in captured.out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "no network is named"),
        (["fast-scnn", "--device", "rtx2080"], 2, "Did you mean rtx2080ti"),
        (["fast-scnn", "--device", ""], 2, "unknown device"),
        (["fast-scm"], 2, "fast-scnn"),
        (["fast-scnn", "--resolution", "64"], 2, "64"),
        (["fast-scnn", "--precision", "bf16"], 2, "does not compute in this precision"),
        (["fast-scnn", "--backend", "all"], 2, "one backend at a time"),
        (["fast-scnn", "--backend", "onnxruntim"], 2, "onnxruntime"),
        (["--published", "--json", "/nowhere/x.json"], 4, "/nowhere"),
        (["--recount", "-"], 2, "the counted layers go to a file"),
    ],
)
def test_bad_calls_are_explained(arguments, code, words, capsys):
    assert main(["roofline", *arguments]) == code
    assert words in capsys.readouterr().err


def test_published_pairs_are_shown_beside_their_limits(capsys):
    assert main(["roofline", "--published", "--json", "-"]) == 0
    captured = capsys.readouterr()
    tree = json.loads(captured.out)
    assert len(tree["published"]) == 30
    assert "never measured here" in captured.err


def test_a_layer_bound_by_memory_does_not_gain_from_arithmetic():
    faster = Roof("toy", "Toy", "fp16", 8e9, 1e9, "by hand")
    assert bound(MEMORY, faster).limit_ms == bound(MEMORY, ROOF).limit_ms
    assert bound(COMPUTE, faster).by == "memory"


def test_no_rate_no_limit():
    with pytest.raises(UsageError):
        Roof.of_device(find("titanxp"), "bf16")


def test_the_document_shows_what_the_code_finds():
    text = DOCUMENT.read_text(encoding="utf-8")
    held, families, _ = hold()
    for entry in held:
        pair = entry.pair
        if pair.family == OTHER:
            continue
        where = f"| {pair.network} | {find(pair.device).title} | {pair.software} | {pair.resolution} | {pair.fps:g} |"
        figures = f" {digits(entry.limit_fps)} | {100 * entry.share:.0f} % | {digits(entry.predicted_fps)} |"
        assert where + figures + f" {100 * (entry.error - 1):+.0f} % |" in text
    for family in families:
        counts = f"| {family.name} | {family.pairs} | {family.networks} | {100 * family.share:.0f} % |"
        assert f"{counts} a factor of {family.typical_error:.2f} | {family.worst_error:.2f} |" in text

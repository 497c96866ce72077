"""The published latency table, and the published networks summed from it."""

import json
from dataclasses import replace

import pytest

from searchkit.costs.expected import Operator
from searchkit.costs.latency import TABLES, Additivity, LatencyTable, load_table, shipped_tables
from searchkit.errors import InputFileError, UsageError
from searchkit.genotype import parse
from searchkit.networks import resolve
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.spaces.fasterseg.genotype import FasterSegGenotype
from searchkit.spaces.fasterseg.latency import predict_latency_ms, table_keys

TABLE = "gtx1080ti-tensorrt5"


def genotype(name: str) -> FasterSegGenotype:
    found = resolve(name).genotype
    assert isinstance(found, FasterSegGenotype)
    return found


def test_table_is_the_published_one():
    table = load_table(TABLE)
    assert shipped_tables() == [TABLE]
    assert len(table.entries_ms) == 667
    assert table.network_input == (1024, 2048)
    assert min(table.entries_ms.values()) == pytest.approx(0.0206, abs=5e-5)
    assert max(table.entries_ms.values()) == pytest.approx(2.832, abs=5e-4)
    assert sum(table.entries_ms.values()) / 667 == pytest.approx(0.204, abs=5e-4)


def test_student_with_the_authors_keys_is_the_value_they_store():
    assert predict_latency_ms(genotype("fasterseg"), load_table(TABLE), authors_keys=True) == 6.4139770511337275


def test_student_with_the_right_keys():
    assert predict_latency_ms(genotype("fasterseg"), load_table(TABLE)) == pytest.approx(5.7018, abs=5e-5)


def test_every_layer_is_priced_once():
    student = genotype("fasterseg")
    layers = len(student.shared) + sum(len(branch) for branch in student.branches)
    # Stem 3, merges of the 1/32 branch 4 and of the 1/16 branch 2, fusion, classifier.
    assert len(list(table_keys(student, 1024, 2048))) == 3 + layers + 4 + 2 + 1 + 1


def test_strided_skip_has_a_key():
    tree = genotype("fasterseg").to_tree()
    tree["branches"][1][2] = {"operator": "skip", "width": 4, "stride": 2}
    changed = parse(json.dumps(tree).encode(), where="changed")
    keys = list(table_keys(changed, 1024, 2048))
    assert "FactorizedReduce_H128_W256_Cin32_Cout64_stride2" in keys
    assert predict_latency_ms(changed, load_table(TABLE)) < predict_latency_ms(genotype("fasterseg"), load_table(TABLE))


def test_an_operator_that_was_not_measured_is_refused():
    tree = genotype("fasterseg").to_tree()
    tree["shared"][0]["width"] = 5
    changed = parse(json.dumps(tree).encode(), where="changed")
    with pytest.raises(UsageError, match=r"lacks an operator.*Cout40"):
        predict_latency_ms(changed, load_table(TABLE))


def test_unknown_table_lists_the_known_ones():
    with pytest.raises(UsageError, match=TABLE):
        load_table("gtx1080")


@pytest.mark.parametrize("damage", [{"unit": "s"}, {"entries": {"a": -1.0}}, {"entries": [1]}, {"network_input": [1]}])
def test_damaged_tables_are_refused(tmp_path, damage):
    tree = json.loads((TABLES / f"{TABLE}.json").read_text())
    path = tmp_path / "t.json"
    path.write_text(json.dumps(tree))
    assert load_table(str(path)).device == "GTX 1080 Ti"
    path.write_text(json.dumps(tree | damage))
    with pytest.raises(InputFileError, match=r"t\.json"):
        load_table(str(path))


MEASURED = LatencyTable(
    device="Some CPU",
    runtime="onnxruntime",
    precision="fp32",
    batch=1,
    network_input=(64, 128),
    source="measured by bench latency-table",
    entries_ms={"conv_H8_W16": 0.125, "head_H8_W16": 0.5},
    runtime_version="1.31.1",
    threads=2,
    date="2026-01-31",
    protocol="medians of 7",
    conditions={"governor": None, "load_1min": 0.25},
    additivity=Additivity(networks=20, pearson=0.99, ratio=1.05, ratio_low=0.9, ratio_high=1.2),
)


def test_a_measured_table_is_read_as_it_was_written(tmp_path):
    MEASURED.save(tmp_path / "t.json")
    assert load_table(str(tmp_path / "t.json")) == MEASURED
    assert load_table(TABLE).additivity is None


def test_a_table_of_thousands_of_operators_can_be_read_again(tmp_path):
    keys = (f"conv3x1_H128_W256_Cin{i}_Cout{i % 97}_dilation16_spatial2_average_norm" for i in range(4000))
    table = replace(MEASURED, entries_ms=dict.fromkeys(keys, 0.123456789012345))
    table.save(tmp_path / "t.json")
    assert load_table(str(tmp_path / "t.json")) == table


@pytest.mark.parametrize("additivity", [{"networks": 3}, {"surprise": 1}, 7])
def test_a_damaged_additivity_is_refused(tmp_path, additivity):
    tree = json.loads(MEASURED.to_json()) | {"additivity": additivity}
    (tmp_path / "t.json").write_text(json.dumps(tree))
    with pytest.raises(InputFileError, match="not a latency table"):
        load_table(str(tmp_path / "t.json"))


def test_price_of_an_operator():
    assert MEASURED.price(Operator("conv_H8_W16", 1, 1)) == 0.125
    with pytest.raises(UsageError, match=r"Some CPU lacks an operator.*conv_H8_W32.*such as conv_H8_W16"):
        MEASURED.price(Operator("conv_H8_W32", 1, 1))


@pytest.mark.parametrize(
    ("device", "version", "named"),
    [
        ("Other CPU", "1.31.1", "Some CPU, not Other CPU"),
        ("Some CPU", "1.30.0", "onnxruntime 1.31.1, not 1.30.0"),
        ("Some CPU", None, "onnxruntime 1.31.1, not installed here"),
        (None, "1.31.1", "Some CPU, not a device that is known"),
    ],
)
def test_a_table_of_another_place_is_refused_unless_asked_for(device, version, named):
    with pytest.raises(UsageError, match=f"another device or runtime.*{named}.*--other-device"):
        MEASURED.check_place(device, version)
    MEASURED.check_place(device, version, other_device=True)
    MEASURED.check_place("Some CPU", "1.31.1")


def test_another_input_size_is_refused():
    MEASURED.check_size(Size(64, 128))
    with pytest.raises(UsageError, match=r"64x128.*128x64"):
        MEASURED.check_size(Size(128, 64))


def test_a_spaces_keys_are_those_that_it_is_priced_by():
    student, table = genotype("fasterseg"), load_table(TABLE)
    keys = SPACES.load("fasterseg").operator_keys(student, Size(1024, 2048))
    assert table.predict_ms(keys) == predict_latency_ms(student, table)

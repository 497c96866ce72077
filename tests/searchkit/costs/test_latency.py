"""The published latency table, and the published networks summed from it."""

import json

import pytest

from searchkit.costs.latency import TABLES, load_table, shipped_tables
from searchkit.errors import InputFileError, UsageError
from searchkit.genotype import parse
from searchkit.networks import resolve
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

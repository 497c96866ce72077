import csv
import io
from dataclasses import replace

import pytest
from rich.console import Console

from bench.printing import print_fps
from bench.table import csv_text, markdown, rich_table, rows_of


@pytest.fixture
def measurements(measured):
    return [
        measured("ssr", ((20.0,) * 5, (21.0,) * 5)),
        measured("fasterseg", ((10.0,) * 5, (10.0,) * 5)),
        measured("erfnet", ((40.0,) * 5, (80.0,) * 5)),
        measured("fast-scnn", ((5.0,) * 5, (5.0,) * 5), backend="pytorch"),
        measured("fasterseg", ((30.0,) * 5, (30.0,) * 5), backend="pytorch"),
    ]


def names(rows):
    return [row.measurement.network.name for row in rows]


def test_order(measurements):
    assert names(rows_of(measurements)) == ["fasterseg", "ssr", "erfnet", "fast-scnn", "fasterseg"]
    assert names(rows_of(measurements, by_latency=False)) == ["ssr", "fasterseg", "erfnet", "fast-scnn", "fasterseg"]


def test_ratio_is_to_fasterseg_on_the_same_backend(measurements):
    rows = {(row.measurement.network.name, row.measurement.session.backend): row for row in rows_of(measurements)}
    ratio = rows["ssr", "onnxruntime"].ratio
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((2.05, 2.025, 2.075))
    assert rows["fast-scnn", "pytorch"].ratio.median == pytest.approx(1 / 6)


def test_without_fasterseg_there_is_no_ratio(measurements):
    (row,) = rows_of(measurements[:1])
    assert row.ratio is None
    assert row.to_tree()["latency_over_fasterseg"] is None
    assert "| - |" in markdown([row])


def test_markdown(measurements):
    lines = markdown(rows_of(measurements)).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[0].startswith("| network | params M | conv GMACs | p50 ms")
    assert lines[3] == "| ssr | 1.02 | 10.90 | 20.5 | 21.0 | 21.0 | 48.8 | 2.05 (2.02-2.08) | onnxruntime |"
    assert lines[4].startswith("| erfnet ! |")


def test_csv_reads_back_with_full_precision(measurements):
    rows = rows_of(measurements)
    found = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert [line["network"] for line in found] == names(rows)
    assert float(found[1]["fps"]) == rows[1].statistics.fps
    assert found[1]["conv_macs"] == "10898106912"
    assert "apart" in found[2]["warnings"]
    assert None not in found[0], "no line has more values than there are columns"


def test_fits_a_hundred_columns(measured):
    slow = measured("fasterseg-teacher", ((1234.0,) * 5, (1300.0,) * 5), precision="fp32")
    rows = rows_of([slow, measured("fasterseg", ((10.5,) * 5,) * 2, precision="fp32")])
    console = Console(width=300)
    assert console.measure(rich_table(rows)).maximum <= 100


def test_printed_table_is_whole_on_a_narrow_terminal(measurements):
    from bench.fps import Setting

    first = measurements[0]
    setting = Setting(first.resolution, first.io, first.protocol, first.machine)
    console = Console(file=io.StringIO(), width=40)
    print_fps(console, rows_of(measurements), setting)
    text = console.file.getvalue()
    assert "2.05 (2.02-2.08)" in text
    assert "…" not in text
    for words in ("FPS is 1000 / p50", "Measured on this machine: a CPU, 2 cores", "print them as FLOPs", "512x1024"):
        assert words in text
    assert "! erfnet on onnxruntime: rounds are 100% apart" in text


def test_no_rows_print_nothing():
    console = Console(file=io.StringIO())
    print_fps(console, [], None)
    assert console.file.getvalue() == ""


def test_modes_and_precisions_are_runtimes_of_their_own(measured):
    rows = rows_of(
        [
            measured("ssr", ((20.0,) * 5,) * 2, "openvino", mode="fp32", precision="fp32"),
            measured("fasterseg", ((10.0,) * 5,) * 2, "openvino", mode="fp32", precision="fp32"),
            measured("ssr", ((9.0,) * 5,) * 2, "openvino", mode="bf16", precision="bf16"),
            measured("fasterseg", ((6.0,) * 5,) * 2, "openvino", mode="bf16", precision="bf16"),
        ]
    )
    assert names(rows) == ["fasterseg", "ssr", "fasterseg", "ssr"]
    assert [row.ratio.median for row in rows] == [1, 2, 1, 1.5]
    assert markdown(rows).count("openvino:bf16") == 2
    assert [line["mode"] for line in csv.DictReader(io.StringIO(csv_text(rows)))] == ["fp32", "fp32", "bf16", "bf16"]
    assert rows[2].to_tree()["precision"] == "bf16"


def test_a_precision_is_a_column_where_one_is_stated(measured, measurements):
    """Measurements from before there were several state none, and their table stays as it was published."""
    assert "precision" not in markdown(rows_of(measurements))
    old, new = measured("ssr"), measured("fasterseg", backend="openvino", mode="bf16", precision="bf16")
    lines = markdown(rows_of([old, new])).splitlines()
    assert lines[0].endswith("| precision | backend |")
    assert lines[1].endswith("| --- | --- |")
    assert lines[2].endswith("| - | onnxruntime |")
    assert lines[3].endswith("| bf16 | openvino:bf16 |")


def test_a_terminal_is_told_the_precision_where_it_differs(measured):
    def headings(*precisions):
        return [column.header for column in rich_table(rows_of([measured(precision=p) for p in precisions])).columns]

    assert "precision" not in headings("fp32", "fp32")
    assert headings("fp32", "bf16")[-3:] == ["precision", "backend", ""]


def test_a_default_mode_is_not_spelled_out(measured):
    (row,) = rows_of([measured(mode="default", precision="fp32")])
    assert "| onnxruntime |" in markdown([row])


def newer(measurement, **changes):
    """As a run of today records it."""
    from bench.protocol import Memory, WarmUp

    return replace(measurement, warm_up=WarmUp(600, 9, True, 0.01), memory=Memory(50 << 20, "growth"), **changes)


def test_a_run_of_today_has_memory_miou_and_an_interval(measured):
    rows = rows_of(
        [newer(measured("ssr", ((20.0,) * 5, (22.0,) * 5))), newer(measured("fasterseg", ((10.0,) * 5,) * 2))]
    )
    heading, _, fast, slow = markdown(rows).splitlines()
    assert "| p90 ms | p95 ms | p99 ms | FPS | memory MiB | mIoU paper | time / FasterSeg |" in heading
    assert "| 50 | (73.1) | 1.00 (1.00-1.00) |" in fast, "the paper's is at 1024x2048"
    assert "| 50 | 73.7 | 2.10 (2.00-2.20) |" in slow
    line = next(csv.DictReader(io.StringIO(csv_text(rows[1:]))))
    assert (line["memory_bytes"], line["memory_how"]) == (str(50 << 20), "growth")
    assert (line["miou_published"], line["miou_published_split"]) == ("73.67", "val")
    assert line["miou_shipped_weights_on"] == "streets val at 128x256"
    assert (line["ratio_interval_low"], line["ratio_interval_high"]) == ("2.0", "2.2")
    tree = rows[1].to_tree()
    assert tree["memory"] == {"peak_bytes": 50 << 20, "how": "growth"}
    assert tree["p50_interval_ms"] == [20.0, 22.0]


def test_published_figures_are_told_from_measured_ones(measured):
    from bench.protocol import Protocol
    from bench.remarks import remarks

    text = " ".join(remarks(rows_of([newer(measured("ssr"))]), Protocol()))
    assert "as the networks' papers print it, not measured here" in text
    assert "on generated streets, which are no Cityscapes: ssr 68.4 at 128x256" in text


def test_other_settings_are_no_reference(measured):
    """A ratio across batches, resolutions or transfers would say nothing of the networks."""
    from bench.protocol import Timed
    from searchkit.sizes import Size

    reference = measured("fasterseg")
    for other in (
        replace(reference, timed=Timed(batch=2)),
        replace(reference, timed=Timed(transfers=True)),
        replace(reference, resolution=Size(256, 512)),
        replace(reference, io="labels"),
    ):
        assert rows_of([measured("ssr"), other])[0].ratio is None


def test_several_resolutions_stand_behind_the_names(measured):
    from searchkit.sizes import Size

    both = [measured("ssr"), replace(measured("ssr"), resolution=Size(1024, 2048))]
    assert "| ssr 512x1024 |" in markdown(rows_of(both))
    assert "| ssr |" in markdown(rows_of(both[:1]))


@pytest.mark.parametrize("precisions", [("fp32", "fp32"), ("fp32", "int8+fp16")])
def test_fits_a_hundred_and_ten_columns(measured, precisions):
    slow = newer(measured("fasterseg-teacher", ((1234.0,) * 5, (1300.0,) * 5), precision=precisions[0]))
    fast = newer(measured("fasterseg", ((10.5,) * 5,) * 2, "pytorch", mode="channels_last", precision=precisions[1]))
    assert Console(width=300).measure(rich_table(rows_of([slow, fast]))).maximum <= 114

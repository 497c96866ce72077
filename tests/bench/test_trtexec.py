"""Files of `trtexec --exportTimes`, as TensorRT 7, 8.0 and 8.6 and later write them."""

import json

import pytest

from bench.trtexec import COLUMNS, is_trace, parse
from searchkit.errors import InputFileError, UsageError


def query(start, compute, *, into=0.2, out=0.1, style="new", **more):
    names = ("H2d", "D2h", "h2d", "d2h") if style != "old" else ("In", "Out", "in", "out")
    first, last, short, brief = names
    middle, end = start + compute, start + compute + out
    fields = {
        "startEnqMs": start - into,
        "endEnqMs": start,
        f"start{first}Ms": start - into,
        f"end{first}Ms": start,
        "startComputeMs": start,
        "endComputeMs": middle,
        f"start{last}Ms": middle,
        f"end{last}Ms": end,
        f"{short}Ms": into,
        "computeMs": compute,
        f"{brief}Ms": out,
        "latencyMs": into + compute + out,
    }
    return fields | more


def trace(times, *, start=250.0, **settings):
    return [query(start + 5 * index, time, **settings) for index, time in enumerate(times)]


def encoded(tree):
    return json.dumps(tree).encode()


TIMES = [2.0, 2.1, 2.2, 2.05]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"style": "new"}, "8 and later"),
        ({"style": "new", "endToEndMs": 2.5}, "8 and later"),
        ({"style": "old", "endToEndMs": 2.5}, "7 and before"),
    ],
)
def test_every_style_is_read(settings, words):
    found = parse(encoded(trace(TIMES, **settings)), where="t.json")
    assert found.samples_ms == tuple(TIMES)
    assert words in found.style
    assert found.transfers
    assert (found.dropped, found.unknown) == (0, ())


def test_the_bytes_that_trtexec_writes():
    """Its own layout: a separator that begins as two spaces, and six significant digits."""
    text = (
        '[\n  { "startEnqMs" : 201.3, "endEnqMs" : 201.5, "startH2dMs" : 199.1, "endH2dMs" : 201.2, '
        '"startComputeMs" : 201.2, "endComputeMs" : 205.123, "startD2hMs" : 205.123, "endD2hMs" : 205.9, '
        '"h2dMs" : 2.10001, "computeMs" : 3.92307, "d2hMs" : 0.777, "latencyMs" : 6.80008 }\n]\n'
    )
    assert parse(text.encode(), where="t.json").samples_ms == (3.92307,)


def test_latency_is_taken_if_asked_for():
    assert COLUMNS == ("computeMs", "latencyMs")
    found = parse(encoded(trace(TIMES)), where="t.json", column="latencyMs")
    assert found.samples_ms == pytest.approx([time + 0.3 for time in TIMES])
    with pytest.raises(UsageError, match="unknown column"):
        parse(encoded(trace(TIMES)), where="t.json", column="enqMs")


def test_a_run_without_transfers_says_so():
    assert not parse(encoded(trace(TIMES, into=0, out=0)), where="t.json").transfers


def test_the_warm_up_is_left_out_and_counted():
    found = parse(encoded([*trace([9.0, 8.0], start=10.0), *trace(TIMES)]), where="t.json")
    assert found.samples_ms == tuple(TIMES)
    assert found.dropped == 2
    with pytest.raises(InputFileError, match="no query behind the warm-up"):
        parse(encoded(trace(TIMES, start=0.5)), where="t.json")


def test_a_field_that_is_not_known_is_named_and_not_used():
    assert parse(encoded(trace(TIMES, powerMs=1.0)), where="t.json").unknown == ("powerMs",)


def test_is_trace():
    assert is_trace(b" \n[")
    assert not is_trace(b'{"schema": 1}')
    assert not is_trace(b"")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[", "not the JSON"),
        (b"[]", "no queries"),
        (b"[1]", "not a query"),
        (b'[{"a": 1}]', "not times of trtexec"),
        (b"\xff\xfe[", "not the JSON"),
        (b"[" * 100_000, "not the JSON"),
        (encoded(trace(TIMES))[:-40], "not the JSON"),
        (encoded(trace(TIMES, latencyMs=float("nan"))), "NaN is not a time"),
        (encoded(trace(TIMES, latencyMs=1e400)), "Infinity is not a time"),
        (encoded(trace(TIMES, endToEndMs=77)).replace(b" 77}", b" 1e999}", 1), "not a time"),
        (encoded(trace(TIMES, computeMs=None)), "got 'null'"),
        (encoded(trace(TIMES, computeMs="2")), "not a time"),
        (encoded(trace(TIMES, computeMs=True)), "not a time"),
        (encoded(trace(TIMES, computeMs=-2.0)), "not a duration"),
        (encoded(trace(TIMES, computeMs=0.0)), "not a duration"),
        (encoded(trace(TIMES, latencyMs=99.0)), "not the sum of its parts"),
        (b'[{"computeMs": 1, "computeMs": 2}]', "stands twice"),
    ],
)
def test_what_is_not_such_a_file_is_refused(data, words):
    with pytest.raises(InputFileError) as caught:
        parse(data, where="t.json")
    assert words in str(caught.value)
    assert "t.json" in str(caught.value)


def test_a_missing_field_names_query_and_field():
    tree = trace(TIMES)
    del tree[2]["d2hMs"]
    with pytest.raises(InputFileError, match=r"t\.json: query 2\.d2hMs: missing field"):
        parse(encoded(tree), where="t.json")

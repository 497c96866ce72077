"""The table of devices: whole, sourced, consistent with itself, and strict about what it is given."""

from __future__ import annotations

import tomllib

import pytest

from bench import devices
from bench.devices import TABLE, find, read
from bench.devices import devices as known
from searchkit.errors import InputFileError, UsageError

TEXT = TABLE.read_text(encoding="utf-8")
SMALL = """
schema = 1
[sources]
sheet = "a data sheet"
[[device]]
name = "toy"
title = "Toy GPU"
also = []
cuda_cores = 1000
boost_mhz = 1000
memory_gb = 4
bandwidth_gb_s = 100.0
source = "sheet"
[[device.peak]]
precision = "fp32"
units = "cuda cores"
tera_ops = 2.0
source = "sheet"
"""


def test_has_the_devices_of_the_published_figures_and_the_ones_to_deploy_on():
    wanted = "titanx-maxwell gtx1080ti titanxp v100 rtx2080ti rtx3090 orin a100 h100 h200"
    assert list(known()) == wanted.split()


@pytest.mark.parametrize("device", known().values(), ids=known())
def test_the_fp32_rate_is_that_of_cores_and_clock(device):
    (fp32,) = (peak for peak in device.peak if peak.precision == "fp32")
    assert fp32.units == "cuda cores"
    assert fp32.tera_ops == pytest.approx(2 * device.cuda_cores * device.boost_mhz / 1e6, rel=0.01)


@pytest.mark.parametrize("device", known().values(), ids=known())
def test_rates_are_dense(device):
    """Halving the width of a value at most doubles the rate on tensor cores; sparse figures would be four times."""
    rates = {peak.precision: peak.tera_ops for peak in device.peak if peak.units == "tensor cores"}
    if {"int8", "fp16"} <= set(rates):
        assert rates["int8"] == pytest.approx(2 * rates["fp16"], rel=0.01)
    if {"tf32", "bf16"} <= set(rates):
        assert rates["tf32"] == pytest.approx(rates["bf16"] / 2, rel=0.01)


def test_every_source_is_used():
    sources = set(tomllib.loads(TEXT)["sources"])
    used = {device.source for device in known().values()} | {p.source for d in known().values() for p in d.peak}
    assert used == sources


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rtx2080ti", "rtx2080ti"),
        ("RTX 2080 Ti", "rtx2080ti"),
        ("2080-ti", "rtx2080ti"),
        ("Titan X (Maxwell)", "titanx-maxwell"),
        ("V100", "v100"),
        ("AGX Orin", "orin"),
    ],
)
def test_devices_are_found_as_papers_spell_them(text, name):
    assert find(text).name == name


def test_an_unknown_device_is_refused_with_the_nearest_names():
    with pytest.raises(UsageError) as caught:
        find("rtx2080")
    assert "Did you mean rtx2080ti" in str(caught.value)
    assert "--device" in str(caught.value)


def test_titan_x_alone_is_ambiguous_and_so_unknown():
    with pytest.raises(UsageError, match="unknown device"):
        find("Titan X")


def test_the_best_units_count_and_an_unknown_precision_is_refused():
    assert find("v100").best("fp16").tera_ops == 125
    with pytest.raises(UsageError, match="no rate in this precision") as caught:
        find("gtx1080ti").best("fp16")
    assert "fp32, int8" in str(caught.value)


def test_a_small_table_is_read():
    assert read(SMALL.encode(), "toy.toml")["toy"].best("fp32").tera_ops == 2


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("schema = 1", "schema = 2", "another schema"),
        ("schema = 1", "", "another schema"),
        ("tera_ops = 2.0", "tera_ops = -2.0", "above 0"),
        ("tera_ops = 2.0", "tera_ops = nan", "finite"),
        ("tera_ops = 2.0", 'tera_ops = "2"', "finite"),
        ("memory_gb = 4", "memory_gb = 0", "memory_gb"),
        ("memory_gb = 4", "memory_gb = 4\ncolour = 1", "unknown field"),
        ("memory_gb = 4", "", "missing field"),
        ('precision = "fp32"', 'precision = "fp12"', "unknown word"),
        ('precision = "fp32"', 'precision = "fp16"', "fp32 among them"),
        ('units = "cuda cores"', 'units = "cores"', "unknown word"),
        ('source = "sheet"\n[[device.peak]]', 'source = "memory"\n[[device.peak]]', "not explained"),
        ('name = "toy"', 'name = "Toy GPU"', "wrong name"),
        ('name = "toy"', 'name = "here"', "share a spelling"),
        ("[[device]]", "[[device", "not valid TOML"),
        ("[[device]]", "[device]", "a list"),
    ],
)
def test_a_damaged_table_is_refused_and_the_place_named(old, new, problem):
    assert old in SMALL
    with pytest.raises(InputFileError) as caught:
        read(SMALL.replace(old, new, 1).encode(), "toy.toml")
    assert problem in str(caught.value)
    assert str(caught.value).startswith("toy.toml")


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(InputFileError, match="not UTF-8"):
        read(b"\xff\xfe", "toy.toml")


def test_two_devices_of_one_spelling_are_refused():
    device = SMALL[SMALL.index("[[device]]") :]
    with pytest.raises(InputFileError, match="share a spelling"):
        read((SMALL + device.replace('"toy"', '"toy2"')).encode(), "toy.toml")


def test_every_precision_has_a_width():
    assert {peak.precision for device in known().values() for peak in device.peak} <= set(devices.WIDTHS)

"""The report's structure and words; how it looks is for `test_report_browser.py`."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.cli import main
from bench.measurement import latency_ratio
from bench.report.style import DARK, LIGHT, RATES
from bench.result_file import read_results

RESULTS = Path(__file__).parents[2] / "bench" / "results"
EPYC = RESULTS / "epyc-2cores-onnxruntime-512x1024.json"
XEON = RESULTS / "xeon-2cores-backends-512x1024.json"
VOID = {"br", "img", "meta"}
HOSTILE = "<script>alert(1)</script>&\"'\u202e`|**\x07"


class Parsed(HTMLParser):
    """Holds what tests ask; fails where a tag is left open or closed twice."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.tags, self.words, self.attributes = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def write(path, edit=lambda tree: None, source=EPYC):
    tree = json.loads(source.read_text())
    edit(tree)
    path.write_text(json.dumps(tree))
    return path


def made(tmp_path, *files, more=("--pictures", "0")):
    page = tmp_path / "report.html"
    assert main(["report", *map(str, files), "-o", str(page), *more]) == 0
    return page.read_text()


def sound(text):
    """What holds for every report."""
    parsed = Parsed(text)
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert not {"script", "link", "iframe", "object"} & set(parsed.tags)
    for tag, name, value in parsed.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "data", "srcset", "action"):
            assert value.startswith(("#", "data:image/png;base64,")), (tag, name, value)
    assert "@import" not in text
    assert "url(" not in text
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)
    targets = {value.removeprefix("#") for _, name, value in parsed.attributes if name == "href"}
    labelled = {value for _, name, value in parsed.attributes if name == "aria-labelledby"}
    assert targets | labelled <= set(parsed.ids)
    assert {"header", "nav", "main", "footer"} <= set(parsed.tags)
    assert parsed.tags.count("h1") == 1
    assert all(value for tag, name, value in parsed.attributes if (tag, name) == ("img", "alt"))
    assert parsed.tags.count("table") == parsed.tags.count("caption")
    assert parsed.tags.count("svg") == sum(
        1 for tag, name, _ in parsed.attributes if (tag, name) == ("svg", "aria-label")
    )
    return parsed


def test_two_files_stand_apart(tmp_path):
    parsed = sound(made(tmp_path, XEON, EPYC))
    assert "Intel(R) Xeon(R) Processor, 2 cores (xeon-2cores-backends-512x1024.json)" in parsed.text
    assert "AMD EPYC, 2 cores (epyc-2cores-onnxruntime-512x1024.json)" in parsed.text
    measurements = read_results(XEON).measurements
    doubtful = sum(bool(m.warnings) for m in measurements)
    assert doubtful
    assert f"{doubtful} of {len(measurements)} measurements carry a warning" in parsed.text
    # One ratio of each machine, never one across both.
    ssr, fasterseg = ([m for m in measurements if m.network.name == name] for name in ("ssr", "fasterseg"))
    assert [m.runtime for m in ssr] == [m.runtime for m in fasterseg]
    ratios = [latency_ratio(slow, fast).median for slow, fast in zip(ssr, fasterseg, strict=True)]
    times = f"{min(ratios):.2f} to {max(ratios):.2f} times as fast, on 7 runtimes."
    assert f"Both at 512x1024: FasterSeg is {times}" in parsed.text
    assert "Both at 512x1024 (onnxruntime cpu): FasterSeg is 2.14 times as fast." in parsed.text


def test_the_paper_is_printed_at_its_resolutions_and_at_equal_ones(tmp_path):
    text = sound(made(tmp_path, EPYC)).text
    assert "the paper's headline 512x1024 1024x2048 RTX 2080 Ti, PyTorch 175 105 1.67" in text
    assert "equal resolution 1024x2048 1024x2048 RTX 2080 Ti, PyTorch 53 105 0.50" in text
    assert "SSR against FasterSeg was not measured at: the paper's headline (SSR 512x1024, FasterSeg 1024x2048)" in text


def test_equal_inputs_give_equal_bytes(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / EPYC.name
    copy.write_bytes(EPYC.read_bytes())
    first = made(tmp_path, EPYC, more=("--pictures", "1"))
    assert made(tmp_path, copy, more=("--pictures", "1")) == first
    assert str(tmp_path) not in first
    assert str(RESULTS) not in first
    assert len(first) < 1_000_000


def test_pictures_of_shipped_weights(tmp_path):
    parsed = sound(made(tmp_path, EPYC, more=("--pictures", "2")))
    alts = [value for tag, name, value in parsed.attributes if (tag, name) == ("img", "alt")]
    assert len(alts) == 2 * 4
    rights = [int(re.search(r"(\d+) % of this picture", alt)[1]) for alt in alts if "ssr at" in alt]
    assert len(rights) == 2
    assert min(rights) > 80


def test_hostile_names_stay_text(tmp_path):
    def edit(tree):
        for entry in tree["measurements"]:
            entry["network"]["name"] = HOSTILE + entry["network"]["name"]
            entry["warnings"] = [HOSTILE]
            entry["session"]["provider"] = HOSTILE
        tree["machine"] = {"cpu": HOSTILE, HOSTILE: HOSTILE}
        cell = dict.fromkeys(("network", "backend", "mode", "precision", "problem"), HOSTILE)
        tree["failures"] = [cell]

    file = write(tmp_path / "hostile<b>.json", edit)
    markdown = tmp_path / "report.md"
    text = made(tmp_path, file, more=("--pictures", "0", "--title", HOSTILE, "--markdown", str(markdown)))
    parsed = sound(text)
    assert "<script>alert(1)</script>&\"'\ufffd`|**\ufffd" in parsed.text
    assert "\u202e" not in text
    assert "\x07" not in text
    written = markdown.read_text()
    assert "<script>" not in written.replace("\\<script\\>", "")
    assert "hostile\\<b\\>.json" in written


def test_no_data(tmp_path):
    empty = write(tmp_path / "empty.json", lambda tree: tree.update(measurements=[], failures=[]))
    assert "Nothing was measured." in sound(made(tmp_path, empty)).text


def test_one_network(tmp_path):
    one = write(tmp_path / "one.json", lambda tree: tree.update(measurements=tree["measurements"][:1]))
    text = sound(made(tmp_path, one)).text
    assert "1 network in 1 measurement at 512x1024." in text


def test_one_sample(tmp_path):
    def edit(tree):
        tree["measurements"] = tree["measurements"][:1]
        tree["measurements"][0]["rounds_ms"] = [[10.0]]
        tree["measurements"][0]["protocol"]["rounds"] = 1

    sound(made(tmp_path, write(tmp_path / "one.json", edit)))


def test_forty_networks(tmp_path):
    def edit(tree):
        many = [json.loads(json.dumps(tree["measurements"][at % 8])) for at in range(40)]
        for at, entry in enumerate(many):
            entry["network"]["name"] = f"network-{at}-with-a-rather-long-name"
            entry["rounds_ms"] = [[ms * (1 + at) for ms in turn] for turn in entry["rounds_ms"]]
        tree["measurements"] = many

    file = write(tmp_path / "many.json", edit)
    given = [word for at in range(40) for word in ("--miou", f"network-{at}-with-a-rather-long-name={50 + at / 2}")]
    text = made(tmp_path, file, more=("--pictures", "0", *given))
    parsed = sound(text)
    assert "40 networks in 40 measurements" in parsed.text
    assert len(text) < 2_000_000


def test_failures_and_interruptions_are_told(tmp_path):
    def edit(tree):
        cell = {"network": "ssr", "backend": "tensorrt", "mode": "default", "precision": "fp16", "problem": "no GPU."}
        tree.update(failures=[cell], complete=False)

    text = sound(made(tmp_path, write(tmp_path / "partial.json", edit))).text
    assert "ssr on tensorrt:default in fp16: no GPU." in text
    assert "The run was interrupted" in text
    assert "1 could not be measured" in text


def roofline(**changes):
    layer = {"macs": 1_000_000, "weight_bytes": 10, "read_bytes": 20_000, "written_bytes": 30_000}
    limit = {"title": "this machine", "precision": "fp32", "rates": "measured here", "gmacs_per_s": 50.0}
    limit |= {"gbytes_per_s": 10.0, "limit_ms": 2.0, "bound_by": "compute", "layers": [layer]}
    entry = {"network": "ssr", "limit": limit, "measured_p50_ms": 4.0}
    away = {"network": "ssr", "limit": limit | {"title": "V100"}}
    away["predicted"] = [{"family": "PyTorch", "low_fps": 100.0, "high_fps": 200.0}]
    tree = {"schema": 1, "kind": "roofline", "resolution": "64x128", "here": {"backend": "ort", "results": [entry]}}
    return tree | {"elsewhere": {"results": [away]}} | changes


def test_roofline(tmp_path):
    file = tmp_path / "roofline.json"
    file.write_text(json.dumps(roofline()))
    parsed = sound(made(tmp_path, EPYC, file))
    assert "this machine fp32, measured here compute 2 500 4 50% -" in parsed.text
    assert "V100 fp32, measured here compute 2 500 - - PyTorch 100 to 200" in parsed.text
    assert "no roofline file was given" not in parsed.text
    assert "Left out: no file of bench roofline --json" in sound(made(tmp_path, EPYC)).text


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"here": {"results": [{}]}},
        {"here": {"results": [{"network": 3, "limit": roofline()["here"]["results"][0]["limit"]}]}},
        {"here": {"results": [roofline()["here"]["results"][0] | {"measured_p50_ms": -1}]}},
        {"here": [1]},
    ],
)
def test_damaged_rooflines_are_refused(tmp_path, capsys, changes):
    file = tmp_path / "roofline.json"
    file.write_text(json.dumps(roofline(**changes)))
    assert main(["report", str(file), "-o", str(tmp_path / "report.html")]) == 3
    assert "roofline.json" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged result file"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "damaged result file"),
        (b'{"schema": 9, "machine": {}, "measurements": [], "failures": []}', "newer version"),
        (b'{"schema": 1, "mean_iou": NaN, "dataset": {}}', "NaN"),
        (b'{"schema": 1, "mean_iou": 0.5, "dataset": {}}', "damaged evaluation"),
        (b'{"schema": 2, "mean_iou": 0.5, "dataset": {}}', "unknown schema of an evaluation"),
        (b"{}", "not a file that a report is made of"),
        (b"[]", "not measurements"),
    ],
)
def test_damaged_files_are_refused(tmp_path, capsys, content, words):
    file = tmp_path / "file.json"
    file.write_bytes(content)
    assert main(["report", str(file), "-o", str(tmp_path / "report.html")]) == 3
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert not (tmp_path / "report.html").exists()


def test_usage(tmp_path, capsys):
    assert main(["report", str(EPYC)]) == 2
    assert main(["report", str(EPYC), "-o", str(tmp_path / "no" / "report.html")]) == 4
    assert main(["report", str(EPYC), "-o", str(tmp_path / "a"), "--markdown", str(tmp_path / "a")]) == 2
    assert main(["report", str(EPYC), "-o", str(tmp_path / "a"), "--title", " "]) == 2
    assert main(["report", str(EPYC), "-o", str(tmp_path / "a"), "--bundle", str(tmp_path)]) != 0
    capsys.readouterr()
    assert list(tmp_path.iterdir()) == []


def test_markdown(tmp_path, capsys):
    assert main(["report", str(EPYC), "--markdown", "-"]) == 0
    text = capsys.readouterr().out
    assert "| ssr | 512x1024 | 84.64 |" in text
    assert "| the paper's headline | 512x1024 | 1024x2048 | RTX 2080 Ti, PyTorch | 175 | 105 | 1.67 |" in text
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) <= 1


def luminance(colour):
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("colours", "which"), [(LIGHT, 0), (DARK, 1)], ids=["light", "dark"])
def test_contrast(colours, which):
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for marks."""
    for ink in ("ink", "muted", "best", "published", "warn"):
        assert contrast(colours[ink], colours["paper"]) >= 4.5, ink
    assert contrast(colours["ink"], colours["panel"]) >= 4.5
    for mark in ("other", "rule"):
        assert contrast(colours[mark], colours["paper"]) >= 3, mark
    for pair in RATES.values():
        assert contrast(colours["ink"], pair[which]) >= 4.5


def test_pictures_of_a_bundle(tmp_path):
    from searchkit.cli import app
    from searchkit.console import run

    bundle = tmp_path / "mine"
    export = ["export", "ssr", "--resolution", "64x128", "--io", "labels", "--weights", "streets", "-o", str(bundle)]
    assert run(app, export) == 0
    parsed = sound(made(tmp_path, EPYC, more=("--bundle", str(bundle))))
    alts = [value for tag, name, value in parsed.attributes if (tag, name) == ("img", "alt")]
    assert alts[0] == "generated street 1"
    assert re.fullmatch(r"mine at 64x128: \d+ % of this picture's pixels right", alts[1])
    assert str(tmp_path) not in parsed.text

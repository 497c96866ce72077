"""`bench lowering`: each rewrite alone, and what was kept, with the raw samples."""

from __future__ import annotations

import json

from bench.cli import main


def test_the_command(tmp_path, capsys):
    target = tmp_path / "l.json"
    arguments = ["lowering", "ssr-baseline1", "--resolution", "64x128", "--threads", "1", "--rounds", "2"]
    assert main([*arguments, "--json", str(target)]) == 0
    shown = capsys.readouterr().out
    assert "ssr-baseline1 on onnxruntime: " in shown
    assert "  downsampler " in shown
    (result,) = json.loads(target.read_text())["results"]
    assert (result["network"], result["backend"]) == ("ssr-baseline1", "onnxruntime")
    assert set(result["applied"]) <= {"downsampler"}

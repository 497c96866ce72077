import getpass
import json
import os
import platform
import subprocess

from bench import machine


def test_description_is_plain_json_and_says_what_matters():
    found = machine.describe()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0
    assert found["python"] == platform.python_version()
    assert found["torch"]
    assert str(found["cores"]) in machine.line(found)


def test_description_names_nobody():
    text = json.dumps(machine.describe())
    assert platform.node() not in text or len(platform.node()) < 4
    assert os.getcwd() not in text
    assert os.path.expanduser("~") not in text
    assert f'"{getpass.getuser()}"' not in text


def test_nothing_makes_it_raise(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError("no")

    monkeypatch.setattr(machine.Path, "read_text", refuse)
    monkeypatch.setattr(os, "getloadavg", refuse)
    monkeypatch.setattr(os, "sysconf", refuse)
    monkeypatch.setattr(os, "sched_getaffinity", refuse, raising=False)
    monkeypatch.setattr(machine.importlib.metadata, "version", refuse)
    monkeypatch.setattr(machine, "_gpu", refuse)
    found = machine.describe()
    assert found["cpu"] is None
    assert found["cores"] is None
    assert machine.line(found)


def test_driver_program_is_read_and_not_required(monkeypatch):
    answers = {
        "driver_version": "570.1, 1980, 1980, 700.00, 31\n",
        "clocks.sm": "1965, 64, 210.5, 0x0000000000000004\n",
    }

    def answer(command, **_settings):
        query = next(part for part in command if part.startswith("--query-gpu="))
        return subprocess.CompletedProcess([], 0, stdout=answers[query.partition("=")[2].split(",")[0]])

    monkeypatch.setattr(machine.shutil, "which", lambda _name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(machine.subprocess, "run", answer)
    assert machine._smi(machine._FACTS)["gpu_driver"] == "570.1"
    assert machine.gpu_state() == {
        "gpu_sm_clock_mhz": 1965.0,
        "gpu_temperature_c": 64.0,
        "gpu_power_w": 210.5,
        "gpu_throttle_reasons": 4,
    }
    answers["clocks.sm"] = "[N/A], 64, [Not Supported], 0x0\n"
    assert machine.gpu_state() == {"gpu_temperature_c": 64.0, "gpu_throttle_reasons": 0}
    monkeypatch.setattr(machine.shutil, "which", lambda _name: None)
    assert machine._smi(machine._FACTS) == {}
    assert machine.gpu_state() == {}

"""`make gpu` without a GPU: every step stubbed, a real process that hangs, and the stand-ins for missing packages."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import gpu_readme, gpu_run
from bench.gpu_run import DONE, FAILED, GRACE_S, LEFT_OUT, PARTLY, TIMED_OUT, Ended, Plan, execute, measure
from bench.gpu_steps import SIZES, Step, steps
from searchkit.errors import BackendUnavailableError, InputFileError
from searchkit.networks import known_names, resolve

ROOT = Path(__file__).parents[2]
GPU = {"gpu": "NVIDIA H100 80GB HBM3", "gpu_driver": "580.1", "torch": "2.11.0", "cuda": "13.0"}


class Device:
    """Answers every command at once, on a clock of its own.

    Attributes:
        answers: name of a step -> exit code, output, what it writes and how long it takes.
    """

    def __init__(self, answers=None, machine=GPU, seconds=10.0):
        self.answers, self.machine, self.seconds = answers or {}, machine, seconds
        self.now, self.commands, self.limits = 0.0, [], []

    def __call__(self, command, limit, environment):
        self.commands.append(list(command))
        self.limits.append(limit)
        target = next(Path(part) for part in reversed(command) if part.endswith((".json", ".xml")))
        if "bench.gpu_machine" in command:
            target.write_text(json.dumps(self.machine))
            return Ended(0, "", 1.0)
        code, output, written, seconds = self.answers.get(target.stem, (0, "", '{"ok": 1.23456789}', self.seconds))
        self.now += seconds
        if isinstance(code, OSError):
            raise code
        if written is not None:
            target.write_text(written)
        return Ended(code, output, seconds)


def a_step(name, **fields):
    return Step(name, name, ("-m", "bench", "fps", "--json", "{json}"), ("--quick",), **fields)


def run(tmp_path, device, *found, budget=500.0, on="cuda"):
    said = []
    plan = Plan(on, found, budget, tmp_path / "results", tmp_path / "logs", device, lambda: device.now, said.append)
    path = measure(plan)
    return path, json.loads(path.read_text()), said


def test_every_step_of_a_gpu_run_ends_in_the_file(tmp_path):
    device = Device({"tests": (0, "", "<testsuite><testcase name='a'/></testsuite>", 5)})
    path, tree, said = run(tmp_path, device, *steps("cuda"))
    assert path.name == "nvidia-h100-80gb-hbm3.json"
    assert (tree["kind"], tree["device"], tree["complete"], tree["machine"]) == ("GPU run", "cuda", True, GPU)
    names = [step["name"] for step in tree["steps"]]
    assert names == [step.name for step in steps("cuda")]
    assert {"headline", "tests", "label-head", "roofline", "pipeline", "fps-compiled"} <= set(names)
    assert {step["state"] for step in tree["steps"]} == {DONE}
    assert tree["steps"][0]["result"] == {"ok": 1.23457}
    assert (tmp_path / "logs" / "headline.log").exists()
    assert len(said) == 2 * len(names)


def test_the_steps_cover_what_is_asked_for():
    commands = [" ".join(step.command) for step in steps("cuda")]
    text = "\n".join(commands)
    for name in known_names():
        assert f" {name} " in text, name
    asked = ("--precision fp16", "pytorch:cuda_graph", "onnxruntime:tensorrt", "headline", "roofline", "pytest -m gpu")
    for part in (*SIZES, *asked):
        assert part in text, part
    assert all("{json}" in command or "{xml}" in command for command in commands)
    assert all(step.least_s <= step.full_s <= step.most_s for step in steps("cuda"))


def test_every_command_of_bench_takes_its_options():
    """Each is parsed by the command line itself, so that an option that was renamed is found here, not on the GPU."""
    import typer

    from bench.cli import app

    group = typer.main.get_command(app)
    for device in ("cuda", "cpu"):
        for step in steps(device):
            module, *arguments = step.command[1:]
            if module != "bench":
                continue
            for more in ((), step.brief):
                command = group.commands[arguments[0]]
                command.make_context(arguments[0], [*arguments[1:], *more])


def test_all_steps_together_stay_below_nine_minutes():
    assert gpu_run.BUDGET_S + GRACE_S < 540


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        ((1, "x\nerror: no kernel\n", None, 1), FAILED, "error: no kernel"),
        ((7, "error: one\nerror: two\n", '{"a": 1}', 1), PARTLY, "error: two (and 1 more)"),
        ((-11, "", None, 1), FAILED, "ended by signal 11"),
        ((None, "", None, 60), TIMED_OUT, "its 60 s were over"),
        ((None, "", '{"complete": false}', 60), TIMED_OUT, "holds what was finished"),
        ((0, "", None, 1), FAILED, "wrote no result"),
        ((0, "", "{broken", 1), FAILED, "not valid JSON"),
        ((0, "", "", 1), FAILED, "not valid JSON"),
        ((OSError("no memory"), "", None, 1), FAILED, "could not be started: no memory"),
        ((1, f"error: {ROOT}/bench/fps.py is gone\n", None, 1), FAILED, "error: bench/fps.py is gone"),
        ((1, "error: " + "x" * 5000, None, 1), FAILED, "xxx..."),
        ((1, "", None, 1), FAILED, "no output"),
    ],
)
def test_a_step_that_fails_says_why_and_stops_no_other(tmp_path, answer, state, words):
    device = Device({"bad": answer})
    _, tree, _ = run(tmp_path, device, a_step("first"), a_step("bad"), a_step("last"))
    first, bad, last = tree["steps"]
    assert (first["state"], bad["state"], last["state"]) == (DONE, state, DONE)
    assert words in bad["why"]
    assert len(bad["why"]) < 400
    assert (bad["result"] is not None) == (answer[2] is not None and answer[2].startswith('{"'))


def test_results_of_a_run_before_are_not_taken_for_new_ones(tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "bad.json").write_text('{"old": 1}')
    _, tree, _ = run(tmp_path, Device({"bad": (1, "", None, 1)}), a_step("bad"))
    assert tree["steps"][0]["result"] is None


def test_a_short_budget_runs_in_brief_and_leaves_out_the_last(tmp_path):
    found = [a_step(name, least_s=10, full_s=40, most_s=50) for name in ("a", "b", "c")]
    device = Device(seconds=20.0)
    _, tree, _ = run(tmp_path, device, *found, budget=45.0)
    assert [step["state"] for step in tree["steps"]] == [DONE, DONE, LEFT_OUT]
    assert [step["in_brief"] for step in tree["steps"]] == [True, True, False]
    assert "5 s are left and it takes 10 at least" in tree["steps"][2]["why"]
    assert all("--quick" in command for command in device.commands[1:])


def test_with_time_enough_nothing_is_in_brief_and_no_step_takes_what_later_ones_need(tmp_path):
    found = [a_step(name, least_s=10, full_s=40, most_s=300) for name in ("a", "b")]
    device = Device(seconds=20.0)
    _, tree, _ = run(tmp_path, device, *found, budget=100.0)
    assert [step["allowed_s"] for step in tree["steps"]] == [90, 80]
    assert device.limits[1:] == [90 - GRACE_S, 80 - GRACE_S]
    assert not any("--quick" in command for command in device.commands)


def test_an_option_is_not_given_twice(tmp_path):
    step = Step("a", "a", ("-m", "bench", "fps", "--quick", "--json", "{json}"), ("--quick",), full_s=500)
    device = Device()
    run(tmp_path, device, step, budget=50)
    assert device.commands[1].count("--quick") == 1


def test_the_file_is_written_after_every_step(tmp_path):
    """A machine that is taken away leaves what was finished."""
    device = Device({"b": (KeyboardInterrupt(), "", None, 1)})

    def stopping(command, limit, environment):
        ended = device(command, limit, environment)
        if isinstance(ended.code, KeyboardInterrupt):
            raise ended.code
        return ended

    plan = Plan("cuda", [a_step("a"), a_step("b")], 100, tmp_path, tmp_path / "logs", stopping, lambda: device.now)
    with pytest.raises(KeyboardInterrupt):
        measure(plan)
    tree = json.loads((tmp_path / "nvidia-h100-80gb-hbm3.json").read_text())
    assert not tree["complete"]
    assert [step["name"] for step in tree["steps"]] == ["a"]


def test_without_the_device_nothing_is_run(tmp_path):
    def absent(command, limit, environment):
        return Ended(1, "error: PyTorch sees no CUDA device here\n", 1.0)

    plan = Plan("cuda", [a_step("a")], 100, tmp_path, tmp_path / "logs", absent)
    with pytest.raises(BackendUnavailableError, match="sees no CUDA device"):
        measure(plan)
    assert not list(tmp_path.glob("*.json"))


def test_on_a_cpu_what_needs_a_gpu_is_left_out(tmp_path):
    device = Device(machine={"cpu": "Some CPU (R)"})
    path, tree, _ = run(tmp_path, device, *steps("cpu"), on="cpu")
    assert path.name == "some-cpu-r.json"
    by_name = {step["name"]: step for step in tree["steps"]}
    assert (by_name["tests"]["state"], by_name["tests"]["why"]) == (LEFT_OUT, "it needs a GPU")


def test_reports_of_tests_are_counted(tmp_path):
    xml = (
        "<testsuites><testsuite><testcase name='good'/><testcase name='bad'><failure/></testcase>"
        "<testcase name='worse'><error/></testcase><testcase name='not'><skipped/></testcase></testsuite></testsuites>"
    )
    step = Step("tests", "tests", ("-m", "pytest", "--junitxml", "{xml}"))
    _, tree, _ = run(tmp_path, Device({"tests": (1, "2 failed", xml, 1)}), step)
    assert tree["steps"][0]["state"] == PARTLY
    assert tree["steps"][0]["result"] == {
        "kind": "tests",
        "passed": 1,
        "failed": 2,
        "skipped": 1,
        "failures": ["bad", "worse"],
    }
    _, tree, _ = run(tmp_path, Device({"tests": (1, "", "<testsuite", 1)}), step)
    assert "not valid XML" in tree["steps"][0]["why"]


# Real processes.


def test_a_process_that_hangs_is_interrupted_and_keeps_what_it_wrote(tmp_path):
    program = (
        "import sys, time\n"
        "print('begun', flush=True)\n"
        "try:\n    time.sleep(60)\n"
        f"except KeyboardInterrupt:\n    open({str(tmp_path / 'kept')!r}, 'w').write('kept')\n"
    )
    ended = execute([sys.executable, "-c", program], 3.0, dict(os.environ))
    assert ended.code is None
    assert "begun" in ended.output
    assert (tmp_path / "kept").read_text() == "kept"
    assert ended.seconds < 3 + GRACE_S


def is_alive(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_process_that_cannot_be_interrupted_is_killed_with_its_children(monkeypatch):
    monkeypatch.setattr(gpu_run, "GRACE_S", 0.5)
    program = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\ntime.sleep(60)\n"
    )
    ended = execute([sys.executable, "-c", program], 3.0, dict(os.environ))
    assert ended.code is None
    assert ended.seconds < 20
    child = int(ended.output.split()[0])
    until = time.monotonic() + 20
    while is_alive(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_alive(child)


def test_the_command_runs_a_step_on_a_cpu(tmp_path):
    """The whole way with real processes: machine, one step of `bench fps`, and the file."""
    options = ["--device", "cpu", "--quick", "--resolution", "64x128,64x128", "--only", "fps-64x128-baselines"]
    folders = ["--results", str(tmp_path / "r"), "--logs", str(tmp_path / "l")]
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu_run", *options, *folders],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "r").glob("*.json")
    tree = json.loads(path.read_text())
    (step,) = tree["steps"]
    assert step["state"] == DONE, step["why"]
    assert step["result"]["measurements"][0]["network"]["name"] == "fast-scnn"


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        (["--device", "tpu"], "unknown device", 2),
        (["--resolution", "64x128"], "two resolutions", 2),
        (["--device", "cpu", "--only", "fsp"], "unknown step", 2),
        (["--resolution", "a,b"], "--resolution", 2),
    ],
)
def test_wrong_options_are_named(capsys, options, words, code):
    from searchkit.console import run as invoke

    assert invoke(gpu_run.app, options) == code
    captured = capsys.readouterr()
    assert words in captured.err


# Where pydantic and fvcore are missing.


def without(packages, program, tmp_path):
    """Runs a program that finds the stand-ins, and none of the packages themselves."""
    blocker = tmp_path / "sitecustomize.py"
    blocker.write_text(
        "import importlib.util, sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name in {tuple(packages)!r}:\n"
        "            from importlib.machinery import PathFinder\n"
        "            spec = PathFinder.find_spec(name, path)\n"
        "            if spec is None or 'standins' not in str(spec.origin):\n"
        "                raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "            return spec\n"
        "sys.meta_path.insert(0, Blocked())\n"
    )
    paths = [ROOT, *sorted((ROOT / "bench" / "standins").iterdir()), tmp_path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)


MISSING = ("pydantic", "pydantic_core", "fvcore")


def test_every_network_is_the_same_without_pydantic(tmp_path):
    program = (
        "import json, pydantic\n"
        "from searchkit.networks import known_names, resolve\n"
        "assert 'standins' in pydantic.__file__\n"
        "found = {name: resolve(name) for name in known_names()}\n"
        "print(json.dumps({name: [n.digest, n.to_json(), n.with_classes(7).digest] for name, n in found.items()}))\n"
    )
    done = without(MISSING, program, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name in known_names():
        network = resolve(name)
        assert found[name] == [network.digest, network.to_json(), network.with_classes(7).digest], name


def test_networks_are_measured_without_pydantic_and_fvcore(tmp_path):
    """What `bench fps` and its table do, less its command line: Typer may itself need pydantic in the version here."""
    program = (
        "from bench import machine, printing, profile\n"
        "from bench.fps import Setting, measure\n"
        "from bench.protocol import Protocol\n"
        "from bench.runtimes import runtimes_of\n"
        "from searchkit.networks import resolve\n"
        "from searchkit.sizes import Size\n"
        "setting = Setting(Size(64, 128), 'logits', Protocol.quick(), machine.describe())\n"
        "outcome = measure([resolve('ssr'), resolve('fasterseg')], runtimes_of(['pytorch:eager']), setting, print)\n"
        "assert not outcome.failures, outcome.failures\n"
        "assert len(outcome.measurements) == 2\n"
    )
    done = without(MISSING, program, tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_stand_in_refuses_what_it_can_see_is_wrong(tmp_path):
    program = (
        "import json, pydantic\n"
        "from searchkit import genotype\n"
        "from searchkit.errors import SearchkitError\n"
        "from searchkit.networks import SHIPPED\n"
        "good = json.loads((SHIPPED / 'ssr.json').read_text())\n"
        "for change in ({'stem': 'x'}, {'pool': 'min'}, {'more': 1}, {'head': {'type': 'none'}}, {'stem': True}):\n"
        "    try:\n"
        "        genotype.parse(json.dumps(good | change).encode(), where='x')\n"
        "    except (SearchkitError, pydantic.ValidationError, TypeError):\n"
        "        continue\n"
        "    raise AssertionError(change)\n"
    )
    done = without(MISSING, program, tmp_path)
    assert done.returncode == 0, done.stderr


def test_counting_operations_without_fvcore_is_refused_when_asked_for(tmp_path):
    program = (
        "from bench.profile import profile\nfrom searchkit.networks import resolve\nfrom searchkit.sizes import Size\n"
        "profile(resolve('fast-scnn'), Size(64, 128))\n"
    )
    done = without(MISSING, program, tmp_path)
    assert done.returncode == 1
    assert "fvcore is missing" in done.stderr


def test_stand_ins_are_used_only_for_what_is_missing(monkeypatch):
    assert gpu_run.environment()[1] == []
    monkeypatch.setitem(sys.modules, "pydantic", None)
    variables, missing = gpu_run.environment()
    assert missing == ["pydantic"]
    assert variables["PYTHONPATH"].split(os.pathsep)[1].endswith("for_pydantic")
    assert "for_fvcore" not in variables["PYTHONPATH"]


# The label head, its device replaced.


@pytest.fixture
def on_the_host(monkeypatch):
    import torch

    from bench import label_head_gpu
    from bench.label_head import CLASSES
    from searchkit.sizes import Size

    monkeypatch.setattr(label_head_gpu, "CASES", ((Size(8, 16), Size(16, 32)),))
    monkeypatch.setattr(label_head_gpu, "_logits", lambda size: torch.arange(CLASSES * 8 * 16.0).view(CLASSES, 8, 16))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    plain = label_head_gpu._ways

    def replace_triton(change):
        def ways(logits, target):
            found = plain(logits, target)
            return found | {"triton": lambda: change(found["pytorch"]())}

        monkeypatch.setattr(label_head_gpu, "_ways", ways)

    return replace_triton


def test_the_label_head_on_a_gpu_is_timed_beside_pytorch(on_the_host, tmp_path):
    from bench import label_head_gpu

    on_the_host(lambda labels: labels)
    label_head_gpu.main(str(tmp_path / "head.json"))
    tree = json.loads((tmp_path / "head.json").read_text())
    (case,) = tree["cases"]
    assert (case["logits"], case["labels"]) == ("8x16", "16x32")
    assert set(case["turns_ms"]) == set(case["times_as_fast_as_pytorch"]) == {"pytorch", "triton"}
    assert len(case["turns_ms"]["triton"]) == label_head_gpu.TURNS


def test_other_labels_of_the_label_head_are_not_timed(on_the_host):
    from bench import label_head_gpu
    from searchkit.errors import VerificationError

    on_the_host(lambda labels: labels * 0)
    with pytest.raises(VerificationError, match="triton gives other labels at 512 pixels"):
        label_head_gpu.measure(1, 1)


# README.


def gpu_file(folder, measured, **fields):
    one, other = measured("ssr", device="cuda"), measured("ssr", [[8.0, 8.1]] * 3, device="cuda", mode="cuda_graph")
    pair = {
        "ssr_resolution": "512x1024",
        "fasterseg_resolution": "1024x2048",
        "runtime": "pytorch:eager",
        "speed": 1.71,
        "interval": [1.6, 1.8],
        "paper_speed": 1.667,
        "paper_on": "RTX 2080 Ti, PyTorch",
    }
    equal = pair | {"fasterseg_resolution": "512x1024", "paper_speed": None, "paper_on": None, "interval": None}
    results = {"measurements": [one.to_tree(), other.to_tree()], "headline": [pair, equal]}
    entries = [
        {"name": "fps", "state": "done", "why": "", "result": results},
        {"name": "tests", "state": "failed", "why": "no kernel", "result": None},
    ]
    tree = {"schema": 1, "kind": "GPU run", "device": "cuda", "machine": GPU, "steps": entries}
    (folder / "nvidia-h100.json").write_text(json.dumps(tree | fields))


def test_the_tables_of_readme_come_from_the_file(tmp_path, measured):
    gpu_file(tmp_path, measured)
    (tmp_path / "another.json").write_text('{"kind": "label head, measured"}')
    text = gpu_readme.section(tmp_path)
    assert "**NVIDIA H100 80GB HBM3** (driver 580.1; torch 2.11.0, cuda 13.0)" in text
    assert "bench/results/nvidia-h100.json" in text
    assert "| ssr | onnxruntime:cuda_graph | - | 8.05 |" in text
    assert text.count("| ssr |") == 1
    assert (
        "against FasterSeg 1024x2048, pytorch:eager: 1.71 times as fast, 1.60 to 1.80 (the paper on RTX 2080 Ti" in text
    )
    assert "the paper prints no such pair" in text
    assert "Not whole: tests (failed: no kernel)." in text


def test_without_a_file_readme_says_so(tmp_path, measured):
    assert gpu_readme.section(tmp_path).startswith("No GPU was measured yet")
    gpu_file(tmp_path, measured, device="cpu")
    assert gpu_readme.section(tmp_path) == gpu_readme.NONE_YET


def test_readme_is_rewritten_between_its_markers_only(tmp_path, measured):
    readme, results = tmp_path / "README.md", tmp_path / "r"
    results.mkdir()
    readme.write_text(f"before\n{gpu_readme.BEGIN}\nold\n{gpu_readme.END}\nbehind\n")
    gpu_readme.rewrite(readme, results)
    once = readme.read_text()
    assert once == f"before\n{gpu_readme.BEGIN}\n{gpu_readme.NONE_YET}\n{gpu_readme.END}\nbehind\n"
    gpu_file(results, measured)
    gpu_readme.rewrite(readme, results)
    gpu_readme.rewrite(readme, results)
    assert "old" not in readme.read_text()
    assert readme.read_text().count("**NVIDIA") == 1


@pytest.mark.parametrize("text", ["no markers", f"{gpu_readme.END}\n{gpu_readme.BEGIN}", gpu_readme.BEGIN * 2])
def test_a_readme_without_its_markers_is_refused(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(InputFileError, match="markers"):
        gpu_readme.rewrite(tmp_path / "README.md", tmp_path)


def test_a_damaged_result_is_named(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputFileError, match=r"x\.json"):
        gpu_readme.section(tmp_path)

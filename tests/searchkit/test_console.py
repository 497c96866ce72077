"""How a command ends: its exit code, what is said, and that nothing else is."""

from __future__ import annotations

import json
import signal

import pytest
import typer

from searchkit.console import Terminated, check_json, out, run, write_json
from searchkit.errors import BackendUnavailableError, DamagedArtifactError, InputFileError, StorageError, UsageError


def ended(capsys, action, argv=("go",)):
    """Exit code, standard output and standard error of a command that does `action`."""
    app = typer.Typer(name="toy", pretty_exceptions_enable=False)
    app.command()(lambda: None)

    @app.command("go")
    def go() -> None:
        action()

    @app.callback()
    def group() -> None:
        """A toy."""

    code = run(app, list(argv))
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def raising(error):
    def act():
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("it is wrong"), 2),
        (InputFileError("it is wrong"), 3),
        (StorageError("it is wrong"), 4),
        (DamagedArtifactError("it is wrong"), 5),
        (BackendUnavailableError("it is wrong"), 7),
    ],
)
def test_a_refusal_is_one_line(capsys, error, code):
    assert ended(capsys, raising(error)) == (code, "", "error: it is wrong.\n")


@pytest.mark.parametrize(
    ("action", "code", "says"),
    [
        (raising(KeyboardInterrupt), 130, "error: interrupted; nothing was left half-written\n"),
        (raising(typer.Abort()), 130, "error: interrupted; nothing was left half-written\n"),
        (raising(BrokenPipeError(32, "Broken pipe")), 141, ""),
        (raising(OSError(28, "No space left", "x.png")), 4, "error: x.png: the disk is full. Free some space"),
        (raising(OSError(28, "No space left")), 4, "error: output: the disk is full. Free some space"),
        (raising(typer.Exit(7)), 7, ""),
        (raising(typer.Exit()), 0, ""),
        (lambda: signal.raise_signal(signal.SIGINT), 130, "error: interrupted; nothing was left half-written\n"),
        (lambda: signal.raise_signal(signal.SIGTERM), 143, "error: terminated; nothing was left half-written\n"),
        (lambda: None, 0, ""),
    ],
)
def test_every_end(capsys, action, code, says):
    found, output, remarks = ended(capsys, action)
    assert (found, output) == (code, "")
    assert remarks.startswith(says)
    assert bool(remarks) == bool(says)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_turns_into_another_error_is_still_a_signal(capsys, number, code):
    def act():
        try:
            signal.raise_signal(number)
        except BaseException:
            raise ImportError("cannot import name 'x' from partially initialised module") from None

    assert ended(capsys, act)[0] == code


def test_an_unforeseen_error_is_not_hidden(capsys):
    with pytest.raises(ZeroDivisionError):
        ended(capsys, lambda: 1 / 0)


@pytest.mark.parametrize("argv", [["nonsense"], ["go", "--nonsense"], ["go", "surplus"]])
def test_words_that_mean_nothing(capsys, argv):
    code, output, remarks = ended(capsys, lambda: None, argv)
    assert (code, output) == (2, "")
    assert "nonsense" in remarks or "surplus" in remarks


def test_signal_handlers_are_put_back(capsys):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    ended(capsys, raising(UsageError("x")))
    ended(capsys, lambda: signal.raise_signal(signal.SIGTERM))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_that_the_caller_ignores_stays_ignored(capsys):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert ended(capsys, lambda: signal.raise_signal(signal.SIGINT))[0] == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_terminated_is_not_an_error_that_a_handler_catches():
    assert not issubclass(Terminated, Exception)


def test_json_to_standard_output_takes_any_text(capsys):
    tree = {"name": "\udcff", "straße": [1, 2.5, None, True]}
    write_json(tree, "-")
    text = capsys.readouterr().out
    assert json.loads(text) == tree
    assert text.isascii()
    assert text.endswith("}\n")


def test_json_to_a_file_is_whole_or_not_there(tmp_path):
    write_json({"a": 1}, str(tmp_path / "a.json"))
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"a": float("nan")}, str(tmp_path / "a.json"))
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("path", ["/dev/full", "/dev/null", ".", "missing/a.json", "a.json/b.json"])
def test_a_json_target_that_cannot_be_written(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(StorageError, match=path):
        check_json(path)


@pytest.mark.parametrize("path", [None, "", "-", "new.json", "a.json", "./a.json"])
def test_a_json_target_that_can_be_written(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_text("{}")
    check_json(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_path_that_the_terminal_cannot_spell(capsys):
    code, output, _ = ended(capsys, lambda: out().print("\udcff.png", markup=False))
    assert code == 0
    assert output == "\\udcff.png\n"

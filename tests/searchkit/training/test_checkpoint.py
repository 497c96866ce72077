import json

import pytest
import torch
from torch import nn

from searchkit.errors import DamagedArtifactError, InputFileError
from searchkit.training import checkpoint, history
from searchkit.training.checkpoint import MODEL, OPTIMISER, STATE, Position

POSITION = Position("a" * 64, 1, 3, 13, 0.25, ((1 / 3, 2.0), (0.1, 0.2)))


def parts(seed: int, optimiser: str = "adam", steps: int = 2):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    made = {
        "adam": lambda: torch.optim.Adam(model.parameters(), lr=0.1),
        "sgd": lambda: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    }[optimiser]()
    for _ in range(steps):
        made.zero_grad()
        model(torch.randn(2, 3, 8, 8)).square().sum().backward()
        made.step()
    average = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return model, average, made


def tensors(model, average, optimiser):
    found = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    found |= {f"average.{name}": tensor for name, tensor in average.items()}
    for index, entry in optimiser.state_dict()["state"].items():
        found |= {f"{index}.{key}": value for key, value in entry.items() if isinstance(value, torch.Tensor)}
    return found


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("steps", [0, 2])
def test_everything_comes_back(tmp_path, optimiser, steps):
    saved, fresh = parts(0, optimiser, steps), parts(1, optimiser, 0)
    checkpoint.save(tmp_path / "c", POSITION, *saved)
    assert checkpoint.restore(tmp_path / "c", *fresh) == POSITION
    assert checkpoint.read_position(tmp_path / "c") == POSITION
    one, other = tensors(*saved), tensors(*fresh)
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)


def test_equal_states_are_equal_bytes(tmp_path):
    for name in "ab":
        checkpoint.save(tmp_path / name, POSITION, *parts(0))
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


@pytest.mark.parametrize("broken", [1, 2, 3, 4])
def test_a_write_that_fails_leaves_the_old_one(tmp_path, monkeypatch, broken):
    path, real, calls = tmp_path / "c", checkpoint.write_bytes, []
    checkpoint.save(path, POSITION, *parts(0))
    before = {file.name: file.read_bytes() for file in path.iterdir()}

    def failing(target, data):
        calls.append(target)
        if len(calls) == broken:
            raise KeyboardInterrupt
        real(target, data)

    monkeypatch.setattr(checkpoint, "write_bytes", failing)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, POSITION, *parts(1))
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("name", [MODEL, OPTIMISER])
def test_a_changed_byte_is_noticed(tmp_path, name):
    checkpoint.save(tmp_path / "c", POSITION, *parts(0))
    data = bytearray((tmp_path / "c" / name).read_bytes())
    data[-1] ^= 1
    (tmp_path / "c" / name).write_bytes(data)
    with pytest.raises(DamagedArtifactError, match="content has changed"):
        checkpoint.restore(tmp_path / "c", *parts(0))


def test_a_missing_file_is_noticed(tmp_path):
    checkpoint.save(tmp_path / "c", POSITION, *parts(0))
    (tmp_path / "c" / MODEL).unlink()
    with pytest.raises(DamagedArtifactError, match="does not exist"):
        checkpoint.restore(tmp_path / "c", *parts(0))


@pytest.mark.parametrize("change", [{"schema": 2}, {"step": None, "x": 1}, {"pending": 3}, {"sha256": []}])
def test_a_state_of_another_form_is_damaged(tmp_path, change):
    checkpoint.save(tmp_path / "c", POSITION, *parts(0))
    state = tmp_path / "c" / STATE
    state.write_text(json.dumps(json.loads(state.read_text()) | change))
    with pytest.raises(DamagedArtifactError):
        checkpoint.restore(tmp_path / "c", *parts(0))


def test_no_checkpoint(tmp_path):
    with pytest.raises(InputFileError, match="there is no checkpoint"):
        checkpoint.read_position(tmp_path / "c")


def test_of_another_network(tmp_path):
    checkpoint.save(tmp_path / "c", POSITION, *parts(0))
    other = nn.Sequential(nn.Conv2d(3, 5, 3))
    with pytest.raises(DamagedArtifactError, match="another network"):
        checkpoint.restore(tmp_path / "c", other, {}, torch.optim.Adam(other.parameters()))


def test_a_torn_tail_of_the_history_is_dropped(tmp_path):
    path = tmp_path / "history.jsonl"
    for step in (1, 2, 3):
        history.append(path, {"step": step})
    path.write_bytes(path.read_bytes() + b'{"step": 4, "lo')
    assert [row["step"] for row in history.read(path)] == [1, 2, 3]
    history.cut(path, 2)
    history.append(path, {"step": 3})
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_a_torn_middle_of_the_history_is_damage(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(DamagedArtifactError, match="line 2"):
        history.read(path)

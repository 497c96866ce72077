"""The weights that come with searchkit: they fit, they are what their record says, and they segment streets."""

import json

import pytest
import torch

from searchkit.data import open_dataset
from searchkit.errors import UsageError
from searchkit.files import sha256_file
from searchkit.networks import resolve
from searchkit.normalization import normalise
from searchkit.sizes import Size
from searchkit.trained import SHIPPED, find_weights, shipped_for
from searchkit.training.metrics import Confusion
from searchkit.weights import load_weights

FILES = sorted(SHIPPED.glob("*.safetensors"))


def test_there_are_some():
    assert shipped_for("ssr") == ["streets"]
    assert find_weights("streets", "ssr") == SHIPPED / "ssr.streets.safetensors"
    assert shipped_for("fasterseg") == ["streets"]
    assert find_weights("streets", "fasterseg") == SHIPPED / "fasterseg.streets.safetensors"


@pytest.mark.parametrize("argument", ["w.safetensors", "runs/w", "/x/streets"])
def test_a_path_is_taken_as_it_is(argument):
    assert str(find_weights(argument, "ssr")) == argument


def test_a_folder_of_the_same_name_does_not_hide_them(tmp_path, monkeypatch):
    (tmp_path / "streets").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_weights("streets", "ssr") == SHIPPED / "ssr.streets.safetensors"


def test_unknown_weights_list_what_there_is():
    with pytest.raises(UsageError, match=r"--weights: unknown weights of ssr \(got 'cityscapes'; allowed: streets\)"):
        find_weights("cityscapes", "ssr")
    with pytest.raises(UsageError, match="none is installed"):
        find_weights("streets", "erfnet")


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_the_record_is_of_this_file(path):
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["sha256"] == sha256_file(path)
    assert record["digest"] == resolve(record["network"]).digest
    assert path.name == f"{record['network']}.{record['data'].partition(':')[0]}.safetensors"


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_they_take_two_bytes_a_parameter(path):
    """A megabyte or two of header, statistics and genotype beside them would be something else than weights."""
    network = resolve(json.loads(path.with_suffix(".json").read_text())["network"])
    with torch.device("meta"):
        tensors = network.build().state_dict().values()
    assert path.stat().st_size < 2 * sum(tensor.numel() for tensor in tensors) + 100_000


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_they_reach_the_recorded_miou(path):
    """On the pictures that the record names, resized to nothing: 128x256 in, 128x256 out."""
    record = json.loads(path.with_suffix(".json").read_text())
    network = resolve(record["network"])
    module = network.build().eval()
    load_weights(module, path, digest=network.digest)
    height, width = record["resolution"]
    dataset = open_dataset(record["data"], size=Size(height, width))
    confusion = Confusion(network.classes)
    with torch.inference_mode():
        for index in range(record["check"]["samples"]):
            sample = dataset.read(record["check"]["split"], index)
            labels = module(torch.from_numpy(normalise(sample.image))).argmax(1)[0].numpy()
            confusion.add(sample.labels, labels)
    assert confusion.mean_iou() == pytest.approx(record["check"]["miou"], abs=0.002)

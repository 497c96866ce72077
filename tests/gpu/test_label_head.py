"""The label head on a CUDA device, by Triton and by CUDA C++: labels, and speed beside PyTorch's resize and arg-max.

Run by `make gpu`, where there is a GPU.
"""

import numpy as np
import pytest
import torch

from deploy.backends._cuda import open_stream, require_gpu
from deploy.native.head_arguments import CERTAINTIES, CORNERS
from deploy.native.label_head import label_head as on_cpu
from deploy.native.label_head_cuda import DeviceLogits, label_head_cuda
from deploy.native.triton_label_head import label_head
from searchkit.sizes import Size

pytestmark = pytest.mark.gpu

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Two classes closer than this are a tie to float32.
TIE = 4e-6


def by_triton(logits, size, corners="half_pixel", certainty=None):
    found = label_head(logits, size, corners=corners, certainty=certainty)
    return [tensor.cpu().numpy() for tensor in (found if certainty else (found,))]


def by_cuda(logits, size, corners="half_pixel", certainty=None):
    """On PyTorch's stream, in its memory."""
    labels, levels = (torch.empty(tuple(size), dtype=torch.uint8, device="cuda") for _ in range(2))
    given = DeviceLogits(
        logits.data_ptr(),
        str(logits.dtype).removeprefix("torch."),
        (1, *logits.shape),
        (logits.numel(), *logits.stride()),
    )
    label_head_cuda(
        given,
        size,
        labels.data_ptr(),
        stream=torch.cuda.current_stream().cuda_stream,
        corners=corners,
        certainty=certainty,
        levels=levels.data_ptr() if certainty else None,
    )
    return [tensor.cpu().numpy() for tensor in ((labels, levels) if certainty else (labels,))]


WAYS = (by_triton, by_cuda)


def random_logits(seed, shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def exact(logits, size, corners):
    aligned = corners == "align_corners"
    double = logits.double()[None]
    return torch.nn.functional.interpolate(double, size=tuple(size), mode="bilinear", align_corners=aligned)[0]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("corners", CORNERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("classes", "source", "target"),
    [(19, (64, 128), (512, 1024)), (19, (61, 97), (333, 517)), (1, (1, 1), (5, 7)), (256, (9, 13), (40, 3))],
)
def test_labels(way, classes, source, target, dtype, corners, last):
    logits = random_logits(classes, (classes, *source), dtype)
    size = Size(*target)
    given = logits.cuda()
    if last:
        given = given.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    (labels,) = way(given, size, corners)
    resized = exact(logits, size, corners)
    chosen = resized.gather(0, torch.from_numpy(labels)[None].long())[0]
    assert (resized.amax(0) - chosen <= TIE * (resized.abs().max() + 1)).all()
    if dtype != torch.bfloat16:
        # The plain steps round as the kernels do.
        np.testing.assert_array_equal(labels, on_cpu(logits.numpy(), size, corners=corners, kernel="numpy"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("certainty", CERTAINTIES)
def test_certainty(way, certainty):
    logits = random_logits(3, (19, 31, 53)) * 4
    size = Size(200, 300)
    labels, levels = way(logits.cuda(), size, certainty=certainty)
    np.testing.assert_array_equal(labels, way(logits.cuda(), size)[0])
    wanted = on_cpu(logits.numpy(), size, certainty=certainty, kernel="numpy")[1]
    # One step: the exponential functions round differently.
    assert np.abs(levels.astype(int) - wanted).max() <= (certainty == "probability")


@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_number(way):
    bits = torch.randint(-(2**31), 2**31, (7, 30, 40), generator=torch.Generator().manual_seed(4), dtype=torch.int64)
    logits = bits.to(torch.int32).view(torch.float32)
    size = Size(100, 130)
    (labels,) = way(logits.cuda(), size)
    np.testing.assert_array_equal(labels, on_cpu(logits.numpy(), size, kernel="numpy"))


@pytest.mark.parametrize("way", WAYS)
def test_several_pictures_on_streams_of_their_own(way):
    logits = [random_logits(seed, (19, 32 + seed, 64)).cuda() for seed in range(4)]
    torch.cuda.synchronize()
    wanted = [way(each, Size(256, 512))[0] for each in logits]
    found = []
    for each in logits:
        with torch.cuda.stream(torch.cuda.Stream()):
            found.append(way(each, Size(256, 512))[0])
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_memory_and_a_stream_without_pytorch():
    """As the backends of TensorRT have them; a batch of two."""
    logits = random_logits(5, (2, 19, 32, 64)).numpy()
    labels = np.empty((2, 256, 512), np.uint8)
    stream = open_stream(require_gpu())
    try:
        source, target = stream.allocate(logits.nbytes), stream.allocate(labels.nbytes)
        stream.upload(source, logits)
        with stream.current():
            label_head_cuda(DeviceLogits(source, "float32", logits.shape), Size(256, 512), target, stream=stream.handle)
        stream.download(target, labels)
    finally:
        stream.close()
    for one, own in zip(logits, labels, strict=True):
        np.testing.assert_array_equal(own, on_cpu(one, Size(256, 512), kernel="numpy"))


def milliseconds(work, turns=50):
    """The median of `turns`, by events on the stream."""
    for _ in range(10):
        work()
    times = []
    for _ in range(turns):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return float(np.median(times))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("source", [(128, 256), (256, 512)])
def test_times_beside_resize_and_arg_max_are_printed(source, dtype, capsys):
    """For people: no test depends on a time. Full-resolution logits are 80 or 160 MB, written and read again."""
    logits = torch.randn(1, 19, *source, device="cuda", dtype=dtype)
    size = Size(1024, 2048)
    plain = milliseconds(
        lambda: torch.nn.functional.interpolate(logits, size=tuple(size), mode="bilinear").argmax(1).to(torch.uint8)
    )
    triton = milliseconds(lambda: label_head(logits[0], size))
    labels = torch.empty(tuple(size), dtype=torch.uint8, device="cuda")
    given = DeviceLogits(logits.data_ptr(), str(dtype).removeprefix("torch."), tuple(logits.shape))
    stream = torch.cuda.current_stream().cuda_stream
    cuda = milliseconds(lambda: label_head_cuda(given, size, labels.data_ptr(), stream=stream))
    with capsys.disabled():
        name = torch.cuda.get_device_name()
        print(f"\n{name}, {source} to {size}, {dtype}: PyTorch {plain:.3f} ms, Triton {triton:.3f}, CUDA {cuda:.3f}")
    full = torch.nn.functional.interpolate(logits.double(), size=tuple(size), mode="bilinear")
    wanted = full.argmax(1).to(torch.uint8)[0]
    assert (labels == wanted).float().mean() > 0.9999
    assert (label_head(logits[0], size) == wanted).float().mean() > 0.9999

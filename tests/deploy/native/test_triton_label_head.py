"""The Triton kernel: run by Triton's interpreter on the CPU, against PyTorch in float64 and the plain steps.

And compiled for GPUs.
"""

from __future__ import annotations

import importlib
import sys

import ml_dtypes
import numpy as np
import pytest
import torch

from deploy.native.head_arguments import CERTAINTIES, CORNERS
from deploy.native.label_head import label_head as on_cpu
from deploy.native.triton_label_head import label_head
from searchkit.errors import BackendUnavailableError, UsageError
from searchkit.sizes import Size

KERNEL = "deploy.native.triton_label_head_kernel"
DTYPES = ("float32", "float16", "bfloat16")
TIE = 4e-6


def fresh_kernel(monkeypatch):
    """The module anew: what Triton's decorators make depends on TRITON_INTERPRET when they are applied."""
    monkeypatch.delitem(sys.modules, KERNEL, raising=False)
    module = importlib.import_module(KERNEL)
    monkeypatch.setitem(sys.modules, KERNEL, module)
    return module


@pytest.fixture
def interpreted(monkeypatch):
    """The interpreter takes its time for each program, whatever it decides: fewer and larger ones."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    module = fresh_kernel(monkeypatch)
    monkeypatch.setattr(module, "ROWS", 32)
    monkeypatch.setattr(module, "COLUMNS", 64)
    return module


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    return fresh_kernel(monkeypatch)


def random_logits(seed, shape, dtype="float32"):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(getattr(torch, dtype))


def as_numpy(logits):
    """What the CPU's label head takes; numpy has no bfloat16 of its own."""
    if logits.dtype == torch.bfloat16:
        return logits.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return logits.numpy()


def exact(logits, size, corners="half_pixel"):
    aligned = corners == "align_corners"
    double = logits.double()[None]
    return torch.nn.functional.interpolate(double, size=tuple(size), mode="bilinear", align_corners=aligned)[0]


def assert_wins(labels, resized):
    chosen = resized.gather(0, labels[None].long())[0]
    assert (resized.amax(0) - chosen <= TIE * (resized.abs().max() + 1)).all()


CASES = [
    (1, (1, 1), (1, 1)),
    (2, (1, 5), (7, 1)),
    (3, (4, 6), (4, 6)),
    (5, (7, 11), (3, 4)),
    (19, (5, 9), (40, 71)),
    (7, (9, 7), (33, 65)),
]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("corners", CORNERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("classes", "source", "target"), CASES)
def test_shapes_types_and_layouts(interpreted, classes, source, target, dtype, corners, last):
    logits = random_logits(classes, (classes, *source), dtype)
    if last:
        logits = logits.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    size = Size(*target)
    found = label_head(logits, size, corners=corners)
    assert (found.dtype, found.shape) == (torch.uint8, target)
    assert_wins(found, exact(logits, size, corners))
    # The plain steps round as the kernel does.
    np.testing.assert_array_equal(found.numpy(), on_cpu(as_numpy(logits), size, corners=corners, kernel="numpy"))


def test_at_its_own_tile(interpreted, monkeypatch):
    """A power of two in both directions, as Triton needs it; the map is no multiple of it."""
    module = fresh_kernel(monkeypatch)
    assert (module.ROWS, module.COLUMNS) == (4, 64)
    logits = random_logits(2, (4, 3, 17))
    size = Size(9, 130)
    np.testing.assert_array_equal(label_head(logits, size).numpy(), on_cpu(logits.numpy(), size, kernel="numpy"))


@pytest.mark.parametrize("corners", CORNERS)
@pytest.mark.parametrize("certainty", CERTAINTIES)
def test_certainty(interpreted, corners, certainty):
    logits = random_logits(3, (19, 9, 11)) * 4
    size = Size(61, 64)
    labels, levels = label_head(logits, size, corners=corners, certainty=certainty)
    np.testing.assert_array_equal(labels, label_head(logits, size, corners=corners))
    resized = exact(logits, size, corners)
    best, second = resized.topk(2, 0).values
    wanted = (
        255 / (resized - best).exp().sum(0) if certainty == "probability" else ((best - second) * 16).clamp(max=255)
    )
    assert levels.dtype == torch.uint8
    assert len(levels.unique()) > 50
    assert (levels - wanted).abs().max() <= 0.501


@pytest.mark.parametrize("certainty", CERTAINTIES)
def test_a_single_class_is_certain(interpreted, certainty):
    labels, levels = label_head(random_logits(0, (1, 3, 4)), Size(6, 8), certainty=certainty)
    assert (labels == 0).all()
    assert (levels == 255).all()


def test_the_lowest_class_wins_a_tie(interpreted):
    logits = torch.zeros(6, 5, 7)
    logits[[2, 4]] = 1
    assert (label_head(logits, Size(40, 56)) == 2).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_loses_and_infinity_wins(interpreted, dtype):
    logits = random_logits(1, (4, 3, 3), dtype)
    logits[0] = torch.nan
    logits[1] = -torch.inf
    logits[3] = torch.inf
    assert (label_head(logits, Size(12, 12)) == 3).all()
    logits[:] = torch.nan
    assert (label_head(logits, Size(12, 12)) == 0).all()
    logits[:] = 0
    logits[1] = 1
    logits[1, 0, 0] = torch.nan
    found = label_head(logits, Size(3, 3))
    assert found[0, 0] == 0
    assert (found.ravel()[1:] == 1).all()


def test_garbage_gives_the_plain_steps_labels(interpreted):
    bits = torch.randint(-(2**31), 2**31, (5, 6, 7), generator=torch.Generator().manual_seed(4), dtype=torch.int64)
    logits = bits.to(torch.int32).view(torch.float32)
    size = Size(20, 23)
    np.testing.assert_array_equal(label_head(logits, size).numpy(), on_cpu(logits.numpy(), size, kernel="numpy"))


def test_256_classes_fit_and_257_do_not(interpreted):
    logits = torch.zeros(256, 2, 2)
    logits[255] = 1
    assert (label_head(logits, Size(4, 4)) == 255).all()
    with pytest.raises(UsageError, match="too many classes"):
        label_head(torch.zeros(257, 2, 2), Size(4, 4))


def test_strides(interpreted):
    whole = random_logits(5, (9, 20, 30))
    for view in (whole[::2, ::3, 1::2], whole[:, :1, :1].expand(9, 4, 5), whole.transpose(1, 2)):
        found = label_head(view, Size(37, 41))
        np.testing.assert_array_equal(found, label_head(view.contiguous(), Size(37, 41)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"logits_CHW": torch.zeros(3, 4)}, "not C x h x w"),
        ({"logits_CHW": torch.zeros(3, 0, 4)}, "not C x h x w"),
        ({"logits_CHW": torch.zeros(3, 4, 4, dtype=torch.int32)}, "another type"),
        ({"size": Size(0, 4)}, "out of range"),
        ({"size": Size(4, 32769)}, "out of range"),
        ({"corners": "centre"}, "convention of corners"),
        ({"certainty": "entropy"}, "certainty"),
    ],
)
def test_bad_arguments_are_refused(interpreted, change, said):
    arguments = {"logits_CHW": torch.zeros(3, 4, 4), "size": Size(8, 8)} | change
    with pytest.raises(UsageError, match=said):
        label_head(**arguments)


def test_logits_on_a_cpu_are_refused_where_nothing_interprets(compiled):
    with pytest.raises(UsageError, match="not on a GPU"):
        label_head(torch.zeros(3, 4, 4), Size(8, 8))


def test_without_triton(monkeypatch):
    monkeypatch.delitem(sys.modules, KERNEL, raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(BackendUnavailableError, match="needs Triton"):
        label_head(torch.zeros(3, 4, 4), Size(8, 8))


@pytest.mark.parametrize("sm", [75, 80, 90])
@pytest.mark.parametrize(
    ("dtype", "certainty", "aligned", "stride"),
    [("fp32", 0, False, "i32"), ("fp16", 1, True, "i32"), ("bf16", 2, False, "i64"), ("fp32", 2, True, "i32")],
)
def test_it_compiles_for_gpus(compiled, sm, dtype, certainty, aligned, stride):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    numbers = {name: stride if name.endswith("stride") else "i32" for name in compiled.SIZES}
    constants = {"aligned": aligned, "certainty": certainty, "rows": compiled.ROWS, "columns": compiled.COLUMNS}
    signature = {"logits": f"*{dtype}", "labels": "*u8", "levels": "*u8", **numbers}
    source = ASTSource(
        fn=compiled.label_head_kernel, signature=signature | dict.fromkeys(constants, "constexpr"), constexprs=constants
    )
    made = triton.compile(source, target=GPUTarget("cuda", sm, 32), options=compiled.OPTIONS)
    assert f".target sm_{sm}" in made.asm["ptx"]
    assert made.asm["cubin"][:4] == b"\x7fELF"
    # Products and sums are rounded one by one, so that labels are those of the plain steps.
    assert "fma." not in made.asm["ptx"]
    assert ".local" not in made.asm["ptx"]


def test_one_compiled_kernel_is_for_all_sizes(compiled, monkeypatch):
    """What `label_head` launches, compiled for a GPU that is not here; sizes of 1 are no exception."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    class Driver:
        def get_current_target(self):
            return GPUTarget("cuda", 75, 32)

        def get_current_device(self):
            return 0

        def get_current_stream(self, device):
            return 0

    monkeypatch.setattr(driver, "_active", Driver())
    # Tensors of the CPU pass; the kernel is none of the interpreter's.
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    made = []
    launch = compiled.label_head_kernel.run
    monkeypatch.setattr(
        compiled.label_head_kernel,
        "run",
        lambda *given, **named: made.append(launch(*given, **named | {"warmup": True})),
    )
    for shape, size in (((19, 16, 32), Size(64, 128)), ((1, 1, 1), Size(1, 1)), ((7, 9, 16), Size(63, 130))):
        label_head(torch.zeros(shape), size)
        label_head(torch.zeros(shape), size, certainty="margin")
    assert len({id(kernel) for kernel in made}) == 2
    for kernel in made:
        assert ".target sm_75" in kernel.asm["ptx"]
        assert "fma." not in kernel.asm["ptx"]

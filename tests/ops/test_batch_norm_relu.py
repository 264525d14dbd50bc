"""Batch norm with ReLU: against float64, and the same bits for any number of threads and any instruction set."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dlp_fast.ops import batch_norm_relu, batch_norm_relu_reference, library, native_available
from dlp_fast.ops.batch_norm_relu import TrainingPass, has_kernel

native = pytest.mark.skipif(not native_available(), reason="the native module is not built")
SHAPES = [(4, 16, 5, 3), (2, 32, 1, 7), (3, 48, 9, 9), (40, 16, 32, 32), (300, 64, 1, 1), (2, 9008, 1, 2)]
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1e-2}
NAMES = ("y", "gradient of x", "of weight", "of bias", "running mean", "running variance")


def inputs(shape, dtype=torch.float32, offset=1.0):
    g = torch.Generator().manual_seed(shape[1])
    x, gradient = (torch.randn(shape, generator=g) for _ in range(2))
    x = (2 * x + offset).to(dtype).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.rand(shape[1], generator=g) + 0.5, 0.3 * torch.randn(shape[1], generator=g)
    return x, weight, bias, gradient.to(dtype).contiguous(memory_format=torch.channels_last)


def outcome(op, x, weight, bias, gradient, dtype=None):
    """y, the gradients, and both running statistics after one call in training mode."""
    x, weight, bias, gradient = (t.to(dtype or t.dtype) for t in (x, weight, bias, gradient))
    running = torch.full_like(weight, 0.5), torch.full_like(weight, 2.0)
    x, weight, bias = (t.clone().requires_grad_() for t in (x, weight, bias))
    y = op(x, weight, bias, *running, True, 0.1, 1e-5)
    y.backward(gradient)
    return y.detach(), x.grad, weight.grad, bias.grad, *running


def off(got, wanted):
    """The largest difference over the values' own scale."""
    return float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max().clamp_min(1e-3))


@native
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_float64(shape, dtype):
    x, weight, bias, gradient = inputs(shape, dtype)
    # near the ReLU's edge the sign is a matter of rounding: no gradient comes from there
    margin = torch.nn.functional.batch_norm(x.double(), None, None, weight.double(), bias.double(), True)
    gradient[margin.abs() < 1e-3] = 0
    assert has_kernel(x, weight, bias, True)
    got = outcome(batch_norm_relu, x, weight, bias, gradient)
    wanted = outcome(batch_norm_relu_reference, x, weight, bias, gradient, torch.float64)
    assert got[0].dtype == got[1].dtype == dtype
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in got[:2])
    for name, a, b in zip(NAMES, got, wanted, strict=True):
        assert off(a, b) < (TOLERANCE[dtype] if a.dtype == dtype else 2e-5), name


@native
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_running_statistics(dtype):
    x, weight, bias, _ = inputs((6, 32, 8, 8), dtype)
    running = torch.linspace(-1, 1, 32), torch.linspace(0.1, 3, 32)
    kept = [t.clone() for t in running]
    with torch.no_grad():
        assert has_kernel(x, weight, bias, False)
        got = batch_norm_relu(x, weight, bias, *running, False)
        wide = [t.double() for t in (x, weight, bias, *running)]
        assert off(got, batch_norm_relu_reference(*wide, False)) < TOLERANCE[dtype]
    assert all(torch.equal(a, b) for a, b in zip(running, kept))


@native
def test_running_statistics_count_as_changed():
    """So that what another operation keeps of them for its backward pass is not taken for what it was."""
    x, weight, bias, _ = inputs((2, 16, 3, 3))
    mean, var = torch.zeros(16), torch.ones(16)
    kept = [(weight.clone().requires_grad_() * of).sum() for of in (mean, var)]
    batch_norm_relu(x, weight, bias, mean, var, True)
    for of in kept:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            of.backward()


@native
def test_the_variance_is_right_far_from_zero():
    """A sum of squares less the square of the sum would have no correct digit here."""
    x, weight, bias, gradient = inputs((20, 16, 16, 16), offset=3000.0)
    got = outcome(batch_norm_relu, x, weight, bias, gradient)
    variance = x.double().var((0, 2, 3)) * 0.1 + 0.9 * 2.0
    torch.testing.assert_close(got[5].double(), variance, rtol=1e-5, atol=0)


@native
def test_a_value_that_is_not_a_number_stays_one():
    x, weight, bias, _ = inputs((2, 16, 4, 4))
    x[0, 3, 1, 1] = float("nan")
    for dtype in TOLERANCE:
        running = torch.zeros(16), torch.ones(16)
        y = batch_norm_relu(x.to(dtype), weight, bias, *running, True)
        assert y[:, 3].isnan().all() and y[:, :3].isfinite().all() and y[:, 4:].isfinite().all()


@native
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_thread_count_does_not_matter(dtype):
    given, threads = inputs((40, 16, 32, 32), dtype), torch.get_num_threads()
    try:
        seen = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            seen.append(outcome(batch_norm_relu, *given))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in seen[1:] for a, b in zip(seen[0], other))


DIGEST = """
import hashlib, torch
from dlp_fast.ops import batch_norm_relu
g, digest = torch.Generator().manual_seed(0), hashlib.sha256()
for dtype in (torch.float32, torch.bfloat16):
    x, gradient = (torch.randn(9, 48, 15, 16, generator=g).to(dtype) for _ in range(2))
    x, gradient = (t.to(memory_format=torch.channels_last) for t in (x, gradient))
    x.requires_grad_()
    weight, bias = torch.rand(48, generator=g).requires_grad_(), torch.randn(48, generator=g).requires_grad_()
    y = batch_norm_relu(x, weight, bias, torch.zeros(48), torch.ones(48), True)
    y.backward(gradient)
    for t in (y.detach(), x.grad, weight.grad, bias.grad):
        digest.update(t.float().contiguous().numpy().tobytes())
print(digest.hexdigest())
"""


@native
@pytest.mark.slow
def test_instruction_sets_give_the_same_bits():
    """Whatever this processor has of them: the level can be lowered, not raised."""
    digests = set()
    for level in ("baseline", "avx2", ""):
        environment = os.environ | {"DLP_FAST_SIMD": level, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, check=True, capture_output=True, text=True
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_all_else_is_plain_torch():
    x, weight, bias, _ = inputs((3, 16, 4, 4))
    for given, training in (
        (x.contiguous(), True),
        (x.double(), True),
        (x.half(), False),
        (x[:, :8], True),
        (x.clone().requires_grad_(), False),
        (x[:0], False),
    ):
        of = weight[: given.shape[1]].to(given.dtype), bias[: given.shape[1]].to(given.dtype)
        assert not has_kernel(given, *of, training)
        running = [torch.zeros_like(of[0]), torch.ones_like(of[0])]
        wanted = batch_norm_relu_reference(given, *of, *(t.clone() for t in running), training)
        assert torch.equal(batch_norm_relu(given, *of, *running, training), wanted)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        batch_norm_relu(x[:1, :, :1, :1], weight, bias, torch.zeros(16), torch.ones(16), True)


@native
@pytest.mark.slow
def test_opcheck():
    x, weight, bias, gradient = inputs((2, 16, 3, 4))
    ops, mean, var = torch.ops.dlp_fast, torch.zeros(16), torch.ones(16)
    plain = x, weight, bias
    torch.library.opcheck(ops.batch_norm_relu.default, (*plain, mean, var, 0.1, 1e-5))
    torch.library.opcheck(ops.batch_norm_relu_eval.default, (*plain, mean, var, 1e-5))
    torch.library.opcheck(ops.batch_norm_relu_backward.default, (gradient, *plain, mean, var, 1e-5))


@native
def test_a_gpu_is_given_what_its_kernels_take(monkeypatch):
    """Shapes, dtypes, layouts and gradients of the way that tensors on a GPU take, without one."""
    for device in (torch.device("cuda"), torch.device("cuda", 0)):
        monkeypatch.setitem(library.PROBED, device, True)
    with FakeTensorMode(), torch.device("cuda"):
        weight, bias, mean, var = (torch.ones(16) for _ in range(4))
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            x = torch.ones(5, 16, 3, 3, dtype=dtype).contiguous(memory_format=torch.channels_last)
            assert has_kernel(x, weight, bias, True) and has_kernel(x[1:], weight, bias, True)
            assert not has_kernel(x.double(), weight, bias, True)
            odd = torch.ones(1 + x.numel(), dtype=dtype)[1:].view(5, 3, 3, 16).permute(0, 3, 1, 2)
            assert odd.is_contiguous(memory_format=torch.channels_last)
            assert not has_kernel(odd, weight, bias, True)  # it begins in the midst of 16 bytes
            leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
            y = batch_norm_relu(*leaves, mean, var, True)
            assert y.requires_grad
            # autograd itself asks the driver for the device
            of = SimpleNamespace(saved_tensors=(x, weight, bias, mean, var), eps=1e-5)
            gradients = TrainingPass.backward(of, odd)[:3]
            for got, like in zip((y, *gradients), (x, *leaves), strict=True):
                assert (got.shape, got.dtype, got.stride()) == (like.shape, like.dtype, like.stride())


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@native
@gpu
@pytest.mark.cuda
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", [*SHAPES, (300, 16, 32, 32)])
def test_a_gpu_gives_the_bits_of_a_cpu(shape, dtype):
    given = inputs(shape, dtype)
    found = outcome(batch_norm_relu, *(t.cuda() for t in given))
    for name, a, b in zip(NAMES, found, outcome(batch_norm_relu, *given), strict=True):
        assert torch.equal(a.cpu(), b), name


@native
@gpu
@pytest.mark.cuda
def test_a_captured_pass_is_the_pass():
    x, weight, bias, gradient = (t.cuda() for t in inputs((40, 16, 8, 8), torch.bfloat16))
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    running = torch.zeros(16, device="cuda"), torch.ones(16, device="cuda")

    def step():
        y = batch_norm_relu(*leaves, *running, True)
        return y, *torch.autograd.grad(y, leaves, gradient)

    wanted = [t.clone() for t in (*step(), *running)]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    for statistics, first in zip(running, (0.0, 1.0), strict=True):
        statistics.fill_(first)
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip((*found, *running), wanted, strict=True))


X = torch.zeros(2, 16, 3, 3).contiguous(memory_format=torch.channels_last)
C = torch.ones(16)


@native
@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((X[0], C, C), "x must have 4 dimensions"),
        ((X.double(), C, C), "x must be float32 or bfloat16"),
        ((X.contiguous(), C, C), "x must be channels-last"),
        ((X[:, :8].contiguous(memory_format=torch.channels_last), C, C), "multiple of 16"),
        ((X[:0], C, C), "at least one value"),
        ((X, C[:8], C), r"weight must be float32 \[16\]"),
        ((X, C, C.double()), r"bias must be float32 \[16\]"),
        ((X[:1, :, :1, :1], C, C), "at least two values a channel"),
    ],
)
def test_native_op_checks_too(arguments, match):
    with pytest.raises(RuntimeError, match=match):
        torch.ops.dlp_fast.batch_norm_relu(*arguments, C.clone(), C.clone(), 0.1, 1e-5)


@native
@pytest.mark.parametrize("wrong", [C[:8], C.double(), torch.ones(32)[::2]])
def test_native_op_checks_running_statistics(wrong):
    for pair, name in (((wrong, C.clone()), "running_mean"), ((C.clone(), wrong), "running_var")):
        with pytest.raises(RuntimeError, match=rf"{name} must be float32 \[16\] and contiguous"):
            torch.ops.dlp_fast.batch_norm_relu(X, C, C, *pair, 0.1, 1e-5)


@native
@pytest.mark.parametrize(
    ("gradient", "match"),
    [
        (X[:1], "the gradient must have the shape of x"),
        (X.bfloat16(), "the gradient must have the dtype of x"),
        (X.contiguous(), "channels-last"),
    ],
)
def test_native_op_checks_too_backward(gradient, match):
    with pytest.raises(RuntimeError, match=match):
        torch.ops.dlp_fast.batch_norm_relu_backward(gradient, X, C, C, C, C, 1e-5)

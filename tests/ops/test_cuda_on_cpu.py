"""The CUDA kernels on the CPU, thread by thread: equal to the CPU kernels to the bit, with no lane left waiting."""

from __future__ import annotations

import ctypes
import shutil

import emulated
import pytest
import torch

from dlp_fast.ops import TriggerTable, inject_trigger, native_available
from dlp_fast.ops.entropy_rank_reference import select_reference

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not native_available() or not shutil.which("g++"), reason="no native ops or no g++"),
]
ELEMENTS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


@pytest.fixture(scope="module")
def cuda(tmp_path_factory):
    library = emulated.build(tmp_path_factory.mktemp("emulated"))
    library.set_device(2, 99 * 1024)
    return library


def at(t):
    return ctypes.c_void_p(t.data_ptr())


def row_entropy(cuda, x):
    entropy, top = torch.full((len(x),), 7.0), torch.full((len(x),), -7, dtype=torch.int32)
    sizes = map(ctypes.c_int64, (*x.shape, x.stride(0)))
    cuda.row_entropy(at(x), ELEMENTS[x.dtype], *sizes, at(entropy), at(top))
    return entropy, top


@pytest.mark.parametrize("dtype", list(ELEMENTS))
@pytest.mark.parametrize(
    "classes", [2, 10, 15, 16, 17, 31, 32, 33, 64, 65, 100, 128, 129, 255, 300, 512, 1000, 1024, 1025, 2500]
)
def test_row_entropy(cuda, classes, dtype):
    n = 20 if classes > 128 else 150
    g = torch.Generator().manual_seed(classes)
    wide = torch.randn(n, classes + 1, generator=g) * 4
    wide[0], wide[1] = wide[0].round(), 0
    wide[2, 1:] += 60 * torch.rand(classes, generator=g)
    wide[3, 1], wide[4, classes], wide[5, classes // 2 + 1] = float("nan"), float("inf"), -float("inf")
    for x in (wide.to(dtype)[:, :classes].contiguous(), wide.to(dtype)[:, 1:]):
        entropy, top = row_entropy(cuda, x)
        want, want_top = torch.ops.dlp_fast.row_entropy(x)
        assert torch.equal(entropy.view(torch.int32), want.view(torch.int32))
        assert torch.equal(top, want_top)


def keys(kind: str, n: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(n)
    return {
        "random": lambda: torch.randn(n, generator=g),
        "equal": lambda: torch.full((n,), -2.5),
        "two": lambda: torch.randint(2, (n,), generator=g).float() - 0.5,
        "signed zero": lambda: torch.where(torch.rand(n, generator=g) < 0.5, -0.0, 0.0),
        "denormal": lambda: torch.randint(-40, 40, (n,), generator=g).float() * 1e-45,
        "close": lambda: (torch.randint(3000, (n,), generator=g, dtype=torch.int32) + 0x3F800000).view(
            torch.float32
        ),
    }[kind]()


@pytest.mark.parametrize("n", [1, 2, 700, 5000])
@pytest.mark.parametrize("kind", ["random", "equal", "two", "signed zero", "denormal", "close"])
def test_choose_few(cuda, kind, n):
    scores = keys(kind, n)
    for classes, wide, k, m in ((1, True, n // 100, 3), (7, False, min(n, 2048), 40), (3, True, 0, 10**9), (9, True, 1, 0)):
        if min(m, n) > 2048:
            m = 2048
        labels = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(classes))
        labels[labels == 5] = 4  # a class without rows
        labels = labels if wide else labels.int()
        want = select_reference(scores, k, m, labels, classes)
        low, counts, faults = (torch.full((size,), -9) for size in (k, classes, 2))
        high = torch.full((len(want[1]),), -9)
        sizes = [ctypes.c_int64(v) for v in (n, k, m)]
        done = cuda.choose_few(
            at(scores), *sizes, at(labels), 2 if wide else 1, ctypes.c_int64(classes),
            at(low), at(high), ctypes.c_int64(len(high)), at(counts), at(faults),
        )  # fmt: skip
        assert done
        for got, wanted in zip((low, high, counts, faults), want, strict=True):
            assert torch.equal(got, wanted)

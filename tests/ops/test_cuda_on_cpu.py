"""The CUDA kernels on the CPU, thread by thread: equal to the CPU kernels to the bit, with no lane left waiting."""

from __future__ import annotations

import ctypes
import shutil

import emulated
import pytest
import torch

from dlp_fast.ops import TriggerTable, inject_trigger, native_available
from dlp_fast.ops.batch_norm_relu import batch_norm_relu_reference
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
    wide[6] = torch.finfo(torch.float32).min if dtype == torch.float32 else torch.finfo(dtype).min
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
    for classes, wide, k, m in (
        (1, True, n // 100, 3),
        (7, False, min(n, 2048), 40),
        (3, True, 0, 10**9),
        (9, True, 1, 0),
    ):
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


OUT = {torch.uint8: 0, torch.float32: 1, torch.float16: 2, torch.bfloat16: 3}


def tables(side: int) -> list[TriggerTable]:
    g = torch.Generator().manual_seed(side)
    image = torch.randint(0, 256, (side, side, 3), dtype=torch.uint8, generator=g)
    residual = torch.randint(-90, 90, (side, side, 3), dtype=torch.int16, generator=g)
    mask = torch.rand(side, side, generator=g)
    return [
        TriggerTable.patch(image[:3, :4], side - 5, side - 7, size=(side, side)),
        TriggerTable.blend(image, 0.2),
        TriggerTable.blend(image, mask),
        TriggerTable.additive(residual),
    ]


@pytest.mark.parametrize("side", [12, 16, 13])  # 16: images of whole vectors; 13: none starts at one
@pytest.mark.parametrize("which_table", range(4))
def test_inject_trigger(cuda, which_table, side):
    n, table = 150, tables(side)[which_table]
    g = torch.Generator().manual_seed(n)
    images = torch.randint(0, 256, (n, side, side, 3), dtype=torch.uint8, generator=g)
    which = torch.where(torch.rand(n, generator=g) < 0.3, 0, -1)
    affine = torch.tensor([0.01, 0.02, 0.03, -1.0, -1.5, -2.0])
    sizes = [ctypes.c_int64(v) for v in (n, side, side)]
    parts = [table.records, table.overlay, table.terms]
    of_table = [at(table.records), ctypes.c_int64(len(table.records))]
    for part in parts[1:]:
        of_table += [at(part), ctypes.c_int64(part.numel())]
    for given in (which, torch.where(torch.arange(n) % 50 == 7, 5, which)):
        wrong = given.clone()
        wrong[wrong > 0] = -1
        want = inject_trigger(images, table, wrong)
        out = images.clone()
        faults = torch.zeros(2, dtype=torch.int64)
        args = [at(given), *sizes, *of_table, at(affine), at(affine[3:]), at(faults)]
        cuda.inject(at(out), at(out), 0, *args)
        assert torch.equal(out, want)
        assert faults.tolist() == [7 if given is not which else -1, -1]
        for dtype, number in OUT.items():
            dense = torch.zeros(n, side, side, 3, dtype=dtype)
            cuda.inject(at(images), at(dense), number, *args)
            y = want if dtype == torch.uint8 else (want.float() * affine[:3] + affine[3:]).to(dtype)
            assert torch.equal(dense, y)


@pytest.mark.parametrize(("side", "count"), [(8, 3), (33, 2), (70, 1), (100, 1)])
def test_high_pass_residual_and_window_hashes(cuda, side, count):
    g = torch.Generator().manual_seed(side)
    images = torch.randint(0, 256, (count, side, side + 3, 3), dtype=torch.uint8, generator=g)
    images[0, :5] = 9  # flat: windows of no contrast
    mean = torch.rand(side * (side + 3) * 3, generator=g)
    out = torch.zeros(count, len(mean))
    cuda.high_pass(at(images), at(mean), ctypes.c_int64(count), side, side + 3, at(out))
    want = torch.ops.dlp_fast.high_pass_residual(images, mean.view(side, side + 3, 3))
    assert torch.equal(out, want.view(count, -1))
    hashes = torch.zeros(count, side - 2, side + 1, dtype=torch.int64)
    cuda.hashes(at(images), ctypes.c_int64(count), side, side + 3, 16, at(hashes))
    assert torch.equal(hashes.view(-1), torch.ops.dlp_fast.window_hashes(images, 16).view(-1))


@pytest.mark.parametrize(
    ("height", "width", "shared", "missing"),
    [(32, 32, 99, 0), (17, 13, 99, 0), (9, 31, 99, 0), (20, 22, 10, 1), (20, 22, 8, 2)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_augment(cuda, height, width, shared, missing, dtype):
    """With both canvases in shared memory (in KiB here), one, and none."""
    n = 40 if missing == 0 else 24
    g = torch.Generator().manual_seed(height)
    images = torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8, generator=g)
    images[::3] //= 4
    ids, table = torch.arange(n) * 7, torch.randn(3, 256, generator=g).to(dtype)
    numbers = [11, 3, height, width, 1, height // 8, 3, 10, height // 2]
    options = torch.tensor(numbers)
    weak, strong = (
        torch.zeros(n, height, width, 3, dtype=dtype),
        torch.zeros(n, height, width, 3, dtype=dtype),
    )
    cuda.set_device(2, shared * 1024)
    try:
        for second in (strong, None):
            found = cuda.augment_views(
                at(images), at(ids), ctypes.c_int64(n), at(options), at(table), table.element_size(),
                at(weak), None if second is None else at(second),
            )  # fmt: skip
            assert found == (missing if second is not None else max(missing - 1, 0))
            want = torch.ops.dlp_fast.augment(
                images, ids, table, 3, 11, True, *numbers[5:], second is not None
            )
            assert torch.equal(weak, want[0])
            assert second is None or torch.equal(second, want[1])
            weak.zero_()
    finally:
        cuda.set_device(2, 99 * 1024)


@pytest.mark.parametrize("classes", [1, 5, 20])  # one block narrows the counters of up to 16 groups
@pytest.mark.parametrize("kind", ["random", "equal", "two", "signed zero", "close"])
def test_select_rows(cuda, kind, classes):
    n = 3000
    scores = keys(kind, n)
    labels = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(classes))
    labels[labels == 3] = 2  # a class without rows
    for largest, count in ((0, 30), (1, 700), (1, n)):
        size = min(n, classes * count)
        composite, group = torch.zeros(size, dtype=torch.int64), torch.zeros(size, dtype=torch.int32)
        counts, faults = torch.zeros(classes, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
        bits = ctypes.c_int64()
        cuda.select_rows(
            at(scores), ctypes.c_int64(n), at(labels), 2, ctypes.c_int64(classes), largest, ctypes.c_int64(count),
            at(composite), at(group), ctypes.c_int64(size), at(counts), at(faults), ctypes.byref(bits),
        )  # fmt: skip
        given = scores if largest else -scores
        _, high, want_counts, want_faults = select_reference(given, 0, count, labels, classes)
        assert torch.equal(counts, want_counts) and torch.equal(faults, want_faults)
        order = composite.argsort()
        order = order[torch.sort(group[order], stable=True).indices][: int(counts.sum())]
        assert torch.equal(composite[order] & ((1 << bits.value) - 1), high[: int(counts.sum())])


def bits(t):
    """As integers; what is no number is one number, whose bits are nobody's."""
    t = torch.where(t.isnan(), float("nan"), t)
    return t.contiguous().view(torch.int32 if t.dtype == torch.float32 else torch.int16)


class Layer:
    """One batch [rows, channels] that batch norm with ReLU works, as the kernels are given it."""

    def __init__(self, rows, channels, dtype):
        g = torch.Generator().manual_seed(rows + channels)
        x, gradient = (torch.randn(rows, channels, generator=g) for _ in range(2))
        self.x = (2 * x + torch.linspace(-3, 300, channels)).to(dtype)
        self.gradient, self.dtype = gradient.to(dtype), dtype
        self.weight, self.bias = torch.rand(channels, generator=g) + 0.5, torch.randn(channels, generator=g)
        self.running = torch.full((channels,), 0.5), torch.full((channels,), 2.0)

    def picture(self, t):
        """[rows, channels] as [1, channels, rows, 1]."""
        return t[None, :, None].permute(0, 3, 1, 2)

    def on_cpu(self):
        """y, mean, variance, running mean, running variance, y in eval mode, gradients of x, weight, bias."""
        ops, running = torch.ops.dlp_fast, [t.clone() for t in self.running]
        x, gradient = self.picture(self.x), self.picture(self.gradient)
        y, mean, variance = ops.batch_norm_relu(x, self.weight, self.bias, *running, 0.1, 1e-5)
        by_running = ops.batch_norm_relu_eval(x, self.weight, self.bias, *running, 1e-5)
        gradients = ops.batch_norm_relu_backward(gradient, x, self.weight, self.bias, mean, variance, 1e-5)
        flat = [t.permute(0, 2, 3, 1).reshape(self.x.shape) for t in (y, by_running, gradients[0])]
        return flat[0], mean, variance, *running, flat[1], flat[2], *gradients[1:]

    def emulated(self, cuda):
        running, out = [t.clone() for t in self.running], []
        mean, variance, of_weight, of_bias = (torch.full_like(self.weight, 7.0) for _ in range(4))
        for number in range(3):
            out.append(torch.full_like(self.x, 7.0))
            given = running if number == 1 else (mean, variance)
            status = cuda.batch_norm(
                number, {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}[self.dtype], at(self.x),
                *map(ctypes.c_int64, self.x.shape), at(self.weight), at(self.bias), ctypes.c_double(1e-5),
                *map(at, running), ctypes.c_double(0.1), at(self.gradient), *map(at, given), at(out[-1]),
                at(of_weight), at(of_bias),
            )  # fmt: skip
            assert status == 0
        return out[0], mean, variance, *running, out[1], out[2], of_weight, of_bias


# a part of one block and of several, of more than are worked at a time, blocks of fewer rows than there are chains,
# both widths of a slice, a last block and a last tile that are not full
SIZES = [(2, 16), (37, 32), (1500, 16), (700, 48), (150_000, 16), (90, 320)]


@pytest.mark.parametrize(
    ("rows", "channels", "dtype"),
    [(*size, dtype) for size in SIZES for dtype in (torch.float32, torch.bfloat16)]
    + [(130, 2080, torch.bfloat16), (3, 4128, torch.float32)],
)
def test_batch_norm_relu(cuda, rows, channels, dtype):
    layer = Layer(rows, channels, dtype)
    layer.x[0, 3] = 3e38 if rows == 37 else layer.x[0, 3]
    cuda.launches_since()
    cuda.set_device(1 + rows % 7, 99 * 1024)  # how many blocks stride along the rows
    found = layer.emulated(cuda)
    cuda.set_device(2, 99 * 1024)
    assert cuda.launches_since() == 2 + 1 + 2
    for number, (a, b) in enumerate(zip(found, layer.on_cpu(), strict=True)):
        assert torch.equal(bits(a), bits(b)), number


def test_batch_norm_relu_in_fp16(cuda):
    """No CPU kernel has it: beside float64, within two roundings to fp16."""
    layer = Layer(1500, 32, torch.float16)
    y, mean, variance, *running, by_running, dx, of_weight, of_bias = layer.emulated(cuda)
    wide = [t.double() for t in (layer.x, layer.weight, layer.bias)]
    x, weight, bias = (t.requires_grad_() for t in wide)
    kept = [t.double() for t in layer.running]
    wanted = batch_norm_relu_reference(layer.picture(x), weight, bias, *kept, True)[0, :, :, 0].T
    margin = wanted.detach().abs() > 1e-3  # nearer to the edge the sign is a matter of rounding
    wanted.backward(torch.where(margin | (wanted == 0), layer.gradient.double(), 0))
    for a, b, tolerance in (
        (y, wanted, 2e-3), (dx, x.grad, 2e-2), (of_weight, weight.grad, 2e-2), (of_bias, bias.grad, 2e-2),
        (running[0], kept[0], 1e-5), (running[1], kept[1], 1e-5), (mean, layer.x.double().mean(0), 1e-5),
        (variance, layer.x.double().var(0, correction=0), 1e-5),
    ):  # fmt: skip
        b = b.detach()
        assert float((a.double() - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))
    scaled = (layer.x.double() - running[0].double()) / (running[1].double() + 1e-5).sqrt()
    expected = (scaled * weight + bias).clamp_min(0).detach()
    assert float((by_running.double() - expected).abs().max()) < 1e-3 * float(expected.abs().max())

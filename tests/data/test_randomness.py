"""Philox against its published vectors and against the kernels' header; the helpers' promises."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from dlp_fast.data.randomness import Block, integers, permutation, philox, uniform01

CSRC = Path(__file__).resolve().parents[2] / "csrc"
COMPILER = shutil.which("c++") or shutil.which("g++")
# Random123's known answers for philox4x32-10: counter, key, words
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
HARNESS = """
#include "philox.h"
extern "C" void words(uint64_t seed, uint32_t epoch, const int64_t* ids, int64_t n, uint32_t block, uint32_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    const dlp::Words w = dlp::philox(seed, epoch, ids[i], block);
    for (int k = 0; k < 4; ++k) out[4 * i + k] = w.word[k];
  }
}
extern "C" int below(uint32_t word, int n) { return dlp::below(word, n); }
extern "C" bool coin(uint32_t word) { return dlp::coin(word); }
"""


def join(low: int, high: int) -> int:
    return low | high << 32


@pytest.fixture(scope="module")
def header(tmp_path_factory):
    """csrc/philox.h as the host compiler sees it."""
    if COMPILER is None or not CSRC.is_dir():
        pytest.skip("needs a C++ compiler and the sources")
    folder = tmp_path_factory.mktemp("philox")
    (folder / "harness.cpp").write_text(HARNESS)
    library = folder / "harness.so"
    command = [
        COMPILER,
        "-std=c++20",
        "-O2",
        "-shared",
        "-fPIC",
        f"-I{CSRC}",
        "-o",
        library,
        folder / "harness.cpp",
    ]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.words.argtypes = [
        ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint32, ctypes.c_void_p
    ]  # fmt: skip
    loaded.below.argtypes = [ctypes.c_uint32, ctypes.c_int]
    loaded.coin.argtypes = [ctypes.c_uint32]
    loaded.coin.restype = ctypes.c_bool
    return loaded


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers(counter, key, words):
    c, k = ([int(part, 16) for part in text.split()] for text in (counter, key))
    ids = np.array([join(c[0], c[1])], np.uint64)
    drawn = philox(join(*k), c[2], ids, c[3])
    assert drawn.dtype == np.uint32
    assert " ".join(f"{w:08x}" for w in drawn[0]) == words


def test_header_draws_the_same_words(header):
    generator = np.random.default_rng(0)
    ids = generator.integers(-(1 << 63), 1 << 63, 500, dtype=np.int64)
    for _ in range(20):
        seed = int(generator.integers(0, 1 << 64, dtype=np.uint64))
        epoch, block = (int(v) for v in generator.integers(0, 1 << 32, 2))
        theirs = np.empty((500, 4), np.uint32)
        header.words(seed, epoch, ids.ctypes.data, 500, block, theirs.ctypes.data)
        assert np.array_equal(philox(seed, epoch, ids, block), theirs)


def test_header_rounds_words_the_same_way(header):
    words = np.concatenate(
        [philox(1, 2, np.arange(50), 3).ravel(), np.array([0, (1 << 31) - 1, 1 << 31, 2**32 - 1])]
    )
    words = words.astype(np.uint32)
    for n in (1, 2, 9, 14, 513):
        assert [header.below(int(w), n) for w in words] == integers(words, n).tolist()
    assert [header.coin(int(w)) for w in words] == (words >> 31).astype(bool).tolist()


def test_words_belong_to_the_id():
    ids = torch.tensor([5, 1, 99])
    whole = philox(3, 4, torch.arange(100), 0)
    assert np.array_equal(philox(3, 4, ids, 0), whole[[5, 1, 99]])
    for other in (philox(2, 4, ids, 0), philox(3, 5, ids, 0), philox(3, 4, ids, 1)):
        assert not np.array_equal(other, whole[[5, 1, 99]])


def test_uniform01():
    assert uniform01(np.array([0, 2**32 - 1], np.uint32)).tolist() == [0.0, 1 - 2**-24]
    values = uniform01(philox(0, 0, np.arange(100_000), 0))
    assert np.array_equal(values, values.astype(np.float32))
    assert np.abs(values.mean(0) - 0.5).max() < 0.005
    assert np.abs(np.cov(values.T) - np.eye(4) / 12).max() < 0.002


def test_integers():
    values = integers(philox(0, 0, np.arange(100_000), 0), 7)
    assert values.dtype == np.int64
    assert np.abs(np.bincount(values.ravel(), minlength=7) / values.size * 7 - 1).max() < 0.02
    assert integers(np.array([0, 2**32 - 1], np.uint32), 1 << 32).tolist() == [0, 2**32 - 1]


def test_permutation():
    order = permutation(1, 2, 1000)
    assert order.dtype == torch.int64 and torch.equal(order.sort().values, torch.arange(1000))
    assert torch.equal(order, permutation(1, 2, 1000))
    assert not torch.equal(order, permutation(1, 3, 1000)) and not torch.equal(order, permutation(2, 2, 1000))
    assert permutation(1, 2, 0).tolist() == [] and permutation(1, 2, 1).tolist() == [0]
    # every place as likely for the first id: chi-square over 6 orders of 3, 5 degrees of freedom
    counts = np.bincount([int("".join(map(str, permutation(0, e, 3).tolist())), 3) for e in range(3000)])
    counts = counts[counts > 0]
    assert len(counts) == 6 and ((counts - 500) ** 2 / 500).sum() < 20


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((1 << 64, 0, np.arange(1), 0), r"seed must be in \[0, 2\*\*64\), got 18446744073709551616"),
        ((-1, 0, np.arange(1), 0), "seed must be in"),
        ((0, 1 << 32, np.arange(1), 0), r"epoch must be in \[0, 2\*\*32\), got 4294967296"),
        ((0, 0, np.arange(1), -1), "block must be in"),
        (
            (0, 0, np.arange(4).reshape(2, 2), 0),
            r"ids must be a vector of integers, got int64 of shape \[2, 2\]",
        ),
        ((0, 0, np.arange(2.0), 0), "ids must be a vector of integers, got float64"),
    ],
)
def test_bad_input(arguments, match):
    with pytest.raises(ValueError, match=match):
        philox(*arguments)


def test_bad_helper_input():
    with pytest.raises(ValueError, match=r"n must be in \[1, 2\*\*32\], got 0"):
        integers(np.zeros(1, np.uint32), 0)
    with pytest.raises(ValueError, match="n must be at least 0, got -1"):
        permutation(0, 0, -1)


def test_blocks_do_not_overlap():
    assert Block.OPERATION + 16 < Block.PERMUTATION

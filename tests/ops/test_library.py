"""Which tensors there are native kernels for."""

import pytest
import torch

from dlp_fast.ops import library


@pytest.mark.parametrize(
    ("device", "loaded", "cuda", "native"),
    [
        ("cpu", True, None, True),
        ("cpu", False, "13.0", False),
        ("cuda", True, "13.0", True),
        ("cuda", True, None, False),  # built on a machine without nvcc: plain torch, not an error
        ("cuda", False, "13.0", False),
    ],
)
def test_native_on(monkeypatch, device, loaded, cuda, native):
    monkeypatch.setattr(library, "native_available", lambda: loaded)
    monkeypatch.setattr(library, "build_info", lambda: {"cuda": cuda})
    assert library.native_on(torch.device(device)) == native

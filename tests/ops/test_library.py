"""Which tensors there are native kernels for."""

import importlib
import json
import warnings

import pytest
import torch

from dlp_fast.ops import build_info, library, native_available

GPU = torch.device("cuda", 0)


def machine(monkeypatch, *, loaded, cuda, fault=None):
    """A machine whose library was built so, and whose GPU answers the probe so; returns the list of GPUs probed."""
    asked = []
    monkeypatch.setattr(library, "PROBED", {})
    monkeypatch.setattr(library, "native_available", lambda: loaded)
    monkeypatch.setattr(library, "build_info", lambda: {"cuda": cuda})
    monkeypatch.setattr(library, "probe", lambda device: asked.append(device) or fault)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return asked


@pytest.mark.parametrize(
    ("device", "loaded", "cuda", "native"),
    [
        ("cpu", True, None, True),
        ("cpu", False, "13.0", False),
        ("cuda", True, "13.0", True),
        ("cuda", True, None, False),  # built on a machine without nvcc: plain torch, not an error
        ("cuda", False, "13.0", False),
        ("mps", True, "13.0", False),  # CUDA kernels are for CUDA devices alone
    ],
)
def test_native_on(monkeypatch, device, loaded, cuda, native):
    machine(monkeypatch, loaded=loaded, cuda=cuda)
    assert library.native_on(torch.device(device)) == native


def test_a_gpu_without_a_kernel_image_is_worked_by_plain_torch_and_told_once(monkeypatch):
    asked = machine(monkeypatch, loaded=True, cuda="13.0", fault="CUDA: no kernel image is available")
    with pytest.warns(
        RuntimeWarning, match=r"do not run on cuda:0 \(CUDA: no kernel image is available\); plain"
    ):
        assert not library.native_on(GPU)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not library.native_on(GPU)
    assert asked == [GPU]  # once a device


def test_each_gpu_is_probed_for_itself(monkeypatch):
    asked = machine(monkeypatch, loaded=True, cuda="13.0")
    for index in (0, 1, 0, 1):
        assert library.native_on(torch.device("cuda", index))
    assert asked == [GPU, torch.device("cuda", 1)]


def test_nothing_is_probed_while_a_graph_is_captured(monkeypatch):
    asked = machine(monkeypatch, loaded=True, cuda="13.0", fault="never asked")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert library.native_on(GPU) and asked == []


@pytest.mark.skipif(not native_available(), reason="the native module is not built")
def test_the_probe_tells_a_kernel_that_fails(monkeypatch):
    """On the CPU in the GPU's place: the probe's own words for right, wrong and raised."""
    assert library.probe(torch.device("cpu")) is None

    class Ops:
        def __init__(self, answer):
            self.row_entropy = answer

    def raises(logits):
        raise RuntimeError("CUDA: no kernel image is available\nand more")

    for answer, expected in (
        (lambda logits: (torch.full((1,), 0.5), None), "came out as 0.5 bits instead of 1"),
        (raises, "CUDA: no kernel image is available"),
    ):
        monkeypatch.setattr(torch.ops, "dlp_fast", Ops(answer), raising=False)
        assert library.probe(torch.device("cpu")).endswith(expected)


def test_the_build_says_what_it_was_linked_for():
    assert {"native", "reason", "cuda", "cuda_architectures", "simd", "sanitized"} <= set(build_info())


def test_build_facts():
    """From the library itself; a tree that is worked in has them as a module too."""
    facts = library.build_info()
    if not facts["native"]:
        assert facts["reason"]
        return
    assert facts["compiler"]
    assert "baseline" in facts["simd"]
    assert (facts["cuda"] is None) == bool(facts["cuda_reason"])
    try:
        module = importlib.import_module("dlp_fast._build_facts")
    except ImportError:
        return
    assert json.loads(module.build_facts())["simd"] == facts["simd"]

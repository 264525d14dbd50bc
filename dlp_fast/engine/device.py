"""Where and in which precision a run computes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch

from dlp_fast.errors import ConfigError, ResourceError
from dlp_fast.runs.environment import processor_field
from dlp_fast.runs.launched import launched


def cpu_has_fast_bf16() -> bool:
    """Whether bf16 autocast is worth it on this CPU.

    With AMX, and on AMD's Zen 4 and later (1.4 times fp32, measured). Intel's AVX-512 BF16 without AMX, as virtual
    machines often show it, is slower than fp32 (0.85 times, measured); elsewhere oneDNN emulates it, at a tenth.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    if torch.cpu._is_amx_tile_supported():
        return True
    return bool(torch.cpu._is_avx512_bf16_supported()) and processor_field("vendor_id") == "AuthenticAMD"


@dataclass(frozen=True)
class Compute:
    """A device with the autocast dtype of its forward passes (None: fp32 throughout); graphs: whether training steps
    are captured as CUDA graphs (see stepping.py); processes: how many work on the run together.
    """

    device: torch.device
    autocast: torch.dtype | None
    graphs: bool = False
    processes: int = 1

    def forward(self) -> contextlib.AbstractContextManager[object]:
        """Context of a training forward pass. Losses and scores are taken outside of it, in fp32."""
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)

    def describe(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        precision = "fp32" if self.autocast is None else "bf16 autocast"
        several = f", {self.processes} processes" if self.processes > 1 else ""
        return f"{name}, {precision}" + (", CUDA graphs" if self.graphs else "") + several


def choose_compute(device: str, precision: str, graphs: str = "auto") -> Compute:
    """The Compute for `device` (auto | cpu | cuda), `precision` (auto | fp32 | bf16) and `graphs` (auto | off).

    Of several processes on a machine (torchrun, srun), each takes the GPU of its number there.
    """
    place = launched()
    if device == "cuda" and not torch.cuda.is_available():
        raise ResourceError("--device cuda: torch sees no usable GPU. Use --device cpu, or check the driver.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"device must be auto, cpu or cuda, got {device}")
    fast = torch.cuda.is_bf16_supported() if device == "cuda" else cpu_has_fast_bf16()
    wanted = precision == "bf16" or (precision == "auto" and fast)
    on = torch.device(device)
    if device == "cuda" and place.world > 1:
        if place.local_rank >= torch.cuda.device_count():
            raise ResourceError(
                f"process {place.local_rank} of this machine has no GPU of its own: torch sees "
                f"{torch.cuda.device_count()}. Start as many processes as there are GPUs (--nproc-per-node)."
            )
        on = torch.device("cuda", place.local_rank)
        torch.cuda.set_device(on)
    captured = device == "cuda" and graphs == "auto"
    return Compute(on, torch.bfloat16 if wanted else None, captured, place.world)


SLOW_BF16 = (
    "this CPU is slower in bf16 than in fp32, ten times where it has no such instructions; --precision auto would take "
    "fp32."
)


def slow_bf16(compute: Compute) -> bool:
    """Whether bf16 was asked for on a CPU that is slower in it."""
    return compute.device.type == "cpu" and compute.autocast and not cpu_has_fast_bf16()

"""Networks of the package timm, which is loaded where one is asked for."""

from __future__ import annotations

from typing import Any

from torch import nn

from dlp_fast.errors import ConfigError, ResourceError
from dlp_fast.runs.install import advice

TIMM = "timm:"


def _timm(name: str) -> Any:
    try:
        import timm
    except ImportError:
        raise ResourceError(f"--model {TIMM}{name} needs the package timm: {advice('timm')}") from None
    return timm


def timm_names(name: str) -> list[str] | None:
    """None where timm has a network `name` (a tag of weights may follow, as in resnet50.a1_in1k); else all names."""
    known = _timm(name).list_models()
    return None if name.split(".")[0] in known else known


def timm_network(name: str, *, classes: int | None = None, pretrained: bool = False) -> nn.Module:
    """timm's network `name`, as timm makes it; classes: outputs, None: as it is in timm."""
    outputs = {} if classes is None else {"num_classes": classes}
    if pretrained:
        return _timm(name).create_model(name, pretrained=True, **outputs)
    try:
        return _timm(name).create_model(name, pretrained=False, **outputs)
    except (RuntimeError, TypeError, ValueError) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"model {TIMM}{name} cannot be built ({told}); choose another --model") from None

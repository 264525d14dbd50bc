"""Every knob of a run: frozen models, each field with its unit and the paper's symbol, each threshold with its source.

section.py, stages.py, detection.py and run.py have the fields; reading.py makes them from files and options.
"""

from dlp_fast.config.detection import DetectionConfig, LearningCurvesConfig, StaticPatternsConfig
from dlp_fast.config.reading import (
    NOT_COMPARED,
    PRESETS,
    build,
    differences,
    merge,
    presets,
    read_preset,
    read_yaml,
    refuse_address,
    resolve,
)
from dlp_fast.config.run import RunConfig
from dlp_fast.config.section import InvalidSection, Section
from dlp_fast.config.stages import (
    DataConfig,
    FinetuningConfig,
    ScheduleName,
    SupervisedConfig,
    UnlearningConfig,
)

__all__ = [
    "NOT_COMPARED",
    "PRESETS",
    "DataConfig",
    "DetectionConfig",
    "FinetuningConfig",
    "InvalidSection",
    "LearningCurvesConfig",
    "RunConfig",
    "ScheduleName",
    "Section",
    "StaticPatternsConfig",
    "SupervisedConfig",
    "UnlearningConfig",
    "build",
    "differences",
    "merge",
    "presets",
    "read_preset",
    "read_yaml",
    "refuse_address",
    "resolve",
]

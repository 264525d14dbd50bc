"""Every knob of a run: frozen models, each field with its unit and the paper's symbol, each threshold with its source.

section.py, stages.py, detection.py and run.py have the fields; reading.py makes them from files and options; places.py
knows where images and results lie.
"""

from dlp_fast.config.detection import DetectionConfig, LearningCurvesConfig, StaticPatternsConfig
from dlp_fast.config.places import (
    IN_MEMORY,
    at_real_places,
    is_folder,
    real_data,
    real_places,
    refuse_overlap,
    refuse_overlaps,
    refuse_test_options,
)
from dlp_fast.config.reading import (
    NOT_COMPARED,
    PRESETS,
    build,
    differences,
    is_streamed,
    merge,
    presets,
    read_preset,
    read_yaml,
    refuse_address,
    resolve,
)
from dlp_fast.config.run import AttackName, RunConfig
from dlp_fast.config.section import InvalidSection, Section
from dlp_fast.config.stages import (
    DataConfig,
    FinetuningConfig,
    ScheduleName,
    SupervisedConfig,
    UnlearningConfig,
)

__all__ = [
    "IN_MEMORY",
    "AttackName",
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
    "at_real_places",
    "build",
    "differences",
    "is_folder",
    "merge",
    "presets",
    "read_preset",
    "read_yaml",
    "real_data",
    "real_places",
    "is_streamed",
    "refuse_address",
    "refuse_overlap",
    "refuse_overlaps",
    "refuse_test_options",
    "resolve",
]

"""Both views by DALI's own operators: flip, padded crop, its rand_augment(2, 10) (one magnitude for all), cutout."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

MAGNITUDE = 10


def views_pipeline(
    source: Callable[[], object],
    batch: int,
    size: int,
    normalisation: Mapping[str, Sequence[float]],
    *,
    device_id: int | None = None,
    files: bool = False,
    half: bool = False,
):
    """A built pipeline whose run() gives the weak and the strong view of a batch, [n, 3, size, size].

    Args:
        source: gives what a run begins with: uint8 [batch, size, size, 3] where the pipeline works, or files.
        normalisation: mean and std of pixels in 0..1, three numbers each.
        device_id: the GPU that it works on; None: the CPU.
        files: `source` gives a list of encoded images of that size, uint8 [bytes], on the CPU.
        half: views in fp16 (there is no bf16 in DALI), else fp32.
    """
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.auto_aug import rand_augment

    place = "cpu" if device_id is None else "gpu"
    pad = size // 8
    mean, std = ([255 * v for v in normalisation[k]] for k in ("mean", "std"))

    def views(pictures):
        flipped = fn.flip(pictures, horizontal=fn.random.coin_flip())
        padded = fn.paste(flipped, ratio=(size + 2 * pad) / size, fill_value=0, paste_x=0.5, paste_y=0.5)
        where = {"crop_pos_x": fn.random.uniform(range=[0, 1]), "crop_pos_y": fn.random.uniform(range=[0, 1])}
        return fn.crop(padded, crop=(size, size), **where)

    def normalised(pictures):
        kind = types.FLOAT16 if half else types.FLOAT
        return fn.crop_mirror_normalize(pictures, dtype=kind, output_layout="CHW", mean=mean, std=std)

    # on a CPU one batch at a time, as ours; on a GPU as DALI does by itself, the next batch while this one is used
    ahead = (
        {"prefetch_queue_depth": 1, "exec_pipelined": False, "exec_async": False} if place == "cpu" else {}
    )

    @pipeline_def(
        batch_size=batch, num_threads=2, device_id=device_id, seed=1, enable_conditionals=True, **ahead
    )
    def both():
        if files:
            data = fn.external_source(source=source, batch=True)
            pictures = fn.decoders.image(data, device="mixed" if place == "gpu" else "cpu")
        else:
            pictures = fn.external_source(source=source, layout="HWC", batch=True, device=place)
        strong = rand_augment.rand_augment(views(pictures), n=2, m=MAGNITUDE, monotonic_mag=True)
        corner = fn.random.uniform(range=[0, 1], shape=[2])
        strong = fn.erase(
            strong, anchor=corner, shape=[16 / size] * 2, normalized=True, axis_names="HW", fill_value=127
        )
        return normalised(views(pictures)), normalised(strong)

    with warnings.catch_warnings():  # its rand_augment calls operators by names that it has given up
        warnings.simplefilter("ignore", DeprecationWarning)
        pipeline = both()
        pipeline.build()
    return pipeline

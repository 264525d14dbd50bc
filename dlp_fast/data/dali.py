"""Files decoded and resized by DALI: on the CPU without a driver, on a GPU by nvJPEG. The only place that imports it.

DALI is given bytes that we have read and checked, and which part of the picture to resize: the ids, their order and the
views are ours (ops.augment), so every loader shows the same images for any batch size, thread or rank. What DALI's own
random operators would draw depends on the batch size, and one bad file ends a pipeline: only scanned files come here.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from dlp_fast.data.fitting import placement
from dlp_fast.data.formats import without_texts
from dlp_fast.data.storage import FileImages, Pending
from dlp_fast.errors import ResourceError
from dlp_fast.runs.install import advice
from dlp_fast.runs.names import printable

# What DALI decodes as Pillow does; all else goes to Pillow: other modes, samples of 16 bits (which DALI scales in
# another way), and TIFF, whose decoder writes lines without a name to the terminal where a layout is not its own.
MODES = ("RGB", "L", "CMYK")
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")
MOST = 512  # images a pipeline run; larger batches go in parts


def available() -> str | None:
    """None where DALI can be used, else why not."""
    try:
        import nvidia.dali  # noqa: F401
    except ModuleNotFoundError:
        return f"DALI is not installed ({advice('dali')})"
    except (ImportError, OSError, RuntimeError) as error:  # a driver too old for it, a library missing
        return f"DALI does not load here ({str(error).splitlines()[0]})"
    return None


def build_pipeline(size: tuple[int, int], threads: int, device_id: int | None):
    """Encoded bytes, start and end of a region in pixels (y, x), size (h, w) that it gets and where that begins (y, x)
    in the result -> uint8 [h, w, 3]: decode, resize the region, bilinear with antialiasing, add black, as `fit` does.

    Args: size: (height, width) of the result; device_id: GPU to decode and resize on; None: CPU, which needs no driver.
    """
    from nvidia.dali import fn, pipeline_def, types

    # one batch at a time: overlap with the network comes from a thread of ours, so no batch is in flight unseen
    @pipeline_def(
        batch_size=MOST,
        num_threads=threads,
        device_id=device_id,
        prefetch_queue_depth=1,
        exec_pipelined=False,
        exec_async=False,
        enable_checkpointing=True,
    )
    def decoded():
        data = fn.external_source(name="files", dtype=types.UINT8, ndim=1, batch=True)
        start = fn.external_source(name="start", dtype=types.FLOAT, ndim=1, batch=True)
        end = fn.external_source(name="end", dtype=types.FLOAT, ndim=1, batch=True)
        inner = fn.external_source(name="inner", dtype=types.FLOAT, ndim=1, batch=True)
        origin = fn.external_source(name="origin", dtype=types.INT32, ndim=1, batch=True)
        pictures = fn.decoders.image(
            data, device="cpu" if device_id is None else "mixed", output_type=types.RGB, use_fast_idct=False
        )
        resized = fn.resize(
            pictures,
            size=inner,
            roi_start=start,
            roi_end=end,
            interp_type=types.INTERP_LINEAR,
            antialias=True,
        )
        return fn.slice(
            resized, start=origin, shape=list(size), axes=(0, 1), out_of_bounds_policy="pad", fill_values=0
        )

    pipeline = decoded()
    pipeline.build()
    return pipeline


class DaliImages(FileImages):
    """Images by id, decoded by DALI; else as FileImages. Pixels differ from Pillow's by rounding (docs/data.md)."""

    def __init__(self, *args, **options):
        reason = available()
        if reason:
            raise ResourceError(f"--loader dali: {reason}. Use --loader auto or torchvision.")
        super().__init__(*args, **options)
        self._pipeline = None
        self._runner = ThreadPoolExecutor(1, thread_name_prefix="dali")
        self._refused: set[int] = set()  # ids that DALI cannot decode, though the scan could

    def _begin(self, ids: torch.Tensor) -> Pending:
        return self._runner.submit(self._run, self._wanted(ids)).result

    def _run(self, wanted: list[int]) -> torch.Tensor:
        batch = torch.empty((len(wanted), self.height, self.width, 3), dtype=torch.uint8, device=self.device)
        theirs = [k for k, i in enumerate(wanted) if self._is_dalis(i)]
        for start in range(0, len(theirs), MOST):
            self._decode_rows(batch, theirs[start : start + MOST], wanted)
        ours = [k for k, i in enumerate(wanted) if not self._is_dalis(i)]
        if ours:
            rest = np.empty((len(ours), self.height, self.width, 3), dtype=np.uint8)
            self.decode_into(rest, [wanted[k] for k in ours])
            batch[torch.tensor(ours, device=self.device)] = torch.from_numpy(rest).to(self.device)
        return batch

    def _is_dalis(self, i: int) -> bool:
        plain = (
            self.index.modes[i] in MODES and self.index.formats[i] in FORMATS and self.index.looks[i, 0] < 0
        )
        return plain and i not in self._refused

    def _decode_rows(self, batch: torch.Tensor, rows: list[int], wanted: list[int]) -> None:
        """Fill `rows` of `batch`. One bad file ends a pipeline: it is found by halving, and left to Pillow for good, so
        that an image has the same pixels in whatever batch it comes.
        """
        try:
            pictures = self._decode([wanted[k] for k in rows])
        except RuntimeError as error:
            self._pipeline = None
            if len(rows) > 1:
                middle = len(rows) // 2
                self._decode_rows(batch, rows[:middle], wanted)
                self._decode_rows(batch, rows[middle:], wanted)
                return
            i = wanted[rows[0]]
            self._refused.add(i)
            if len(self._refused) == 1:
                reason = str(error).strip().splitlines()[-1]
                where = printable(self.index.paths[i])
                warnings.warn(
                    f"DALI cannot decode {where} ({reason}); Pillow decodes such files",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return
        batch[torch.tensor(rows, device=self.device)] = pictures

    def _decode(self, wanted: list[int]) -> torch.Tensor:
        """uint8 [k, h, w, 3] of files that DALI reads; RuntimeError where it cannot read one of them."""
        if self._pipeline is None:
            device_id = self.device.index or 0 if self.device.type == "cuda" else None
            self._pipeline = build_pipeline((self.height, self.width), self.workers, device_id)
        places = [
            placement(
                int(self.index.widths[i]), int(self.index.heights[i]), self.height, self.width, self.fit
            )
            for i in wanted
        ]
        self._pipeline.feed_input("files", [self._checked(i, _plain) for i in wanted])
        self._pipeline.feed_input("start", [np.float32([p.region[1], p.region[0]]) for p in places])
        self._pipeline.feed_input("end", [np.float32([p.region[3], p.region[2]]) for p in places])
        self._pipeline.feed_input("inner", [np.float32(p.size) for p in places])
        self._pipeline.feed_input("origin", [-np.int32(p.offset) for p in places])
        (pictures,) = self._pipeline.run()
        tensor = pictures.as_tensor()
        if self.device.type == "cuda":
            kept = torch.from_dlpack(tensor).clone()
            torch.cuda.current_stream().synchronize()  # before the next batch may be decoded into the same memory
            return kept
        return torch.from_numpy(np.array(tensor))


def _plain(data: bytes) -> np.ndarray:
    """A file's bytes; a PNG without texts and colour profile, of which libpng complains on the terminal, by no name."""
    seen = without_texts(data, keep_orientation=True) if data.startswith(b"\x89PNG") else data
    return np.frombuffer(seen, dtype=np.uint8)

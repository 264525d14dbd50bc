"""Image files bred by coverage: inputs that reach new code of the decoders' Python side are kept and mutated further.

    python -m benchmarks.system.reliability.guided_images --count 20000

Needs Atheris (`pip install atheris`), which is libFuzzer for Python; without it nothing is tried. It begins with the
files of mutated_images.py, and every second mutation is one of its own along the file's structure. What is looked for:
an end of the process, a file that takes 20 seconds or 2 GiB, and pixels that differ from one decoding to the next.
"""

from __future__ import annotations

import importlib.util
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.system.reliability.promise import Promise, Trial, main

ROOT = Path(__file__).resolve().parents[3]
LARGEST = 1 << 16  # bytes of a file
LIMITS = ("-timeout=20", "-rss_limit_mb=2048", f"-max_len={LARGEST}", "-verbosity=1")
CHILD = "from benchmarks.system.reliability.guided_images import fuzz; fuzz()"


def fuzz() -> None:
    """The child: `sys.argv` are options of libFuzzer and the folder of files. It ends the process itself."""
    import atheris

    with atheris.instrument_imports(include=["PIL", "dlp_fast.data"]):
        from benchmarks.system.reliability import mutated_images

    def breed(data: bytes, largest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return atheris.Mutate(data, largest)
        return mutated_images.mutated(bytes(data), rng)[:largest]

    def one(data: bytes) -> None:
        first = mutated_images.pixels(data, 0x55)
        again = mutated_images.pixels(data, 0xAA)
        assert first == again, f"decoded differently twice: {first} then {again}"

    atheris.Setup(sys.argv, one, custom_mutator=breed)
    atheris.Fuzz()


def trials(count: int, rng: random.Random, folder: Path) -> Iterator[Trial]:
    if importlib.util.find_spec("atheris") is None:
        print("  not tried: Atheris is not installed", flush=True)
        return
    from benchmarks.system.reliability.mutated_images import sources

    files = folder / "files"
    files.mkdir()
    for number, data in enumerate(sources()):
        (files / str(number)).write_bytes(data)
    words = [
        f"-runs={count}",
        f"-seed={rng.randrange(1, 2**31)}",
        f"-artifact_prefix={folder}/",
        *LIMITS,
        str(files),
    ]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))},
        capture_output=True,
        text=True,
        errors="replace",
    )
    reached = re.search(r"Done (\d+) runs", done.stderr)
    if done.returncode == 0 and reached:
        yield Trial(True, f"{len(list(files.iterdir()))} files kept", number=int(reached[1]))
        return
    bad = [path for path in folder.iterdir() if path.is_file()]
    content = bad[0].read_bytes()[:2000].hex() if bad else ""
    yield Trial(False, f"code {done.returncode}: {done.stderr[-600:]} {content}")


PROMISE = Promise(
    "images bred by coverage",
    "no image file that is bred to reach new code of the decoders ends a process, hangs, or decodes differently twice",
    "Atheris on the decoding of all formats, from the files above; one in two mutations is along the structure",
    trials,
    full=20_000,
    sample=1_000,
    part=5_000,
)

if __name__ == "__main__":
    main(PROMISE)

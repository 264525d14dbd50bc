"""Time and memory from learning curves to verdict and table, for as many images as asked for; no picture is made.

Curves are drawn as stage 1 would see them, with a planted group in some classes. Images of all classes lie mixed.

python -m benchmarks.system.rows --images 1000000 --classes 1000 --out RESULT.json
"""

from __future__ import annotations

import hashlib
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import add_out, add_threads, chosen, parser_of, write_result
from dlp_fast.config import RunConfig
from dlp_fast.detection.decide import Decision, decide
from dlp_fast.detection.detect import look_at_curves
from dlp_fast.detection.mislabeled import probably_mislabeled
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.propose.learning_curves import learning_curves
from dlp_fast.detection.suspicion import by_groups
from dlp_fast.detection.verdict import verdict
from dlp_fast.runs.mapped import column_table
from dlp_fast.runs.reader import read_samples
from dlp_fast.runs.writer import RunFolder
from dlp_fast.selection.partition import Selection, select
from dlp_fast.selection.table import samples_table

EPOCHS = 10
SHARE = 0.06  # of a class that has a planted group, images of it
COMPARED = 4  # classes whose groups are found once more by themselves, in fp32


def drawn(label: int, count: int, planted: int, looks: int) -> np.ndarray:
    """fp32 [looks, count]: losses of a class at so many of EPOCHS, evenly spaced; the first `planted` are learnt
    together, late and deeply.
    """
    rng = np.random.default_rng(label)
    epochs = np.linspace(0, EPOCHS - 1, looks, dtype=np.float32)[:, None]
    spread = np.where(np.arange(count) < planted, 0.7, 2.0).astype(np.float32)
    odds = -1 + 0.3 * epochs + spread * rng.standard_normal(count, dtype=np.float32)
    odds += 0.7 * rng.standard_normal((looks, count), dtype=np.float32)
    odds[:, :planted] += 7 / (1 + np.exp(3 - epochs))
    return np.log1p(np.exp(-odds))


def observed(n: int, classes: int, poisoned: int, looks: int, folder: Path) -> Observed:
    """Curves of n images; image i is of class i % classes, and the first `poisoned` classes have a planted group."""
    entropy, loss, other = (column_table(looks, n, folder) for _ in range(3))
    for label in range(classes):
        count = len(range(label, n, classes))
        planted = round(SHARE * count) if label < poisoned else 0
        own = torch.from_numpy(drawn(label, count, planted, looks))
        loss[:, label::classes], entropy[:, label::classes] = own, 0.8 * own
        other[:, label::classes] = own.mean() + 3
    labels = torch.arange(n) % classes
    return Observed(None, labels, classes, entropy, loss, other, (labels + 1) % classes)


def compare(decision: Decision, seen: Observed, poisoned: int, config: RunConfig) -> bool:
    """Whether COMPARED classes, looked at by themselves in fp32, give the groups that all of them gave."""
    wanted = sorted({*range(min(poisoned, COMPARED // 2)), *range(seen.classes)[-COMPARED // 2 :]})
    ids = np.concatenate([np.arange(c, len(seen.labels), seen.classes) for c in wanted])
    labels = np.repeat(
        np.arange(len(wanted)), [len(range(c, len(seen.labels), seen.classes)) for c in wanted]
    )
    entropy, loss = (of[:, torch.from_numpy(ids)].float().numpy() for of in (seen.entropy, seen.loss))
    groups = learning_curves(entropy, loss, labels, len(wanted), config.detection.learning_curves)
    alone = decide(groups, config.detection)
    of_all = {entry.group.label: entry.group for entry in decision.scored}
    return all(
        np.array_equal(ids[entry.group.core], of_all[wanted[entry.group.label]].core)
        for entry in alone.scored
    )


def main() -> None:
    arguments = parser_of(__doc__, "benchmarks.system.rows")
    arguments.add_argument("--images", type=int, default=1_000_000)
    arguments.add_argument("--classes", type=int, default=1000)
    arguments.add_argument("--poisoned", type=int, default=3, help="classes with a planted group")
    arguments.add_argument("--looks", type=int, default=EPOCHS, help="epochs after which images were scored")
    arguments.add_argument("--no-table", action="store_true", help="leave samples.* out")
    add_threads(arguments, 2)
    add_out(arguments)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    config, seconds = RunConfig(), {}

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        began, spent = time.monotonic(), time.process_time()
        with memory_at_most() as held:
            yield
        seconds[what] = {"wall": time.monotonic() - began, "processor": time.process_time() - spent}
        seconds[what]["bytes"] = held[0]
        took, most = seconds[what]["wall"], held[0] / 1e9
        print(f"{what:<24} {took:8.1f} s  {most:5.2f} GB of its own at most", flush=True)

    n, classes = options.images, options.classes
    with tempfile.TemporaryDirectory() as folder:
        with timed("drawing (not counted)"):
            seen = observed(n, classes, options.poisoned, options.looks, Path(folder))
        before = peak()
        with timed("mixtures"):
            decision = look_at_curves(seen, config.detection)
        with timed("mislabeled"):
            wrong = torch.from_numpy(probably_mislabeled(seen, config.detection))
        with timed("suspicion"):
            suspicion = by_groups(decision.found, seen.entropy, seen.loss, config.detection)
            suspicion = replace(suspicion, mislabeled=wrong)
        with timed("selection"):
            chosen_ids = select(suspicion, seen.labels, classes, config.detection)
        del suspicion
        with timed("verdict"):
            names = tuple(f"class {c:05d}" for c in range(classes))
            sizes = torch.bincount(seen.labels, minlength=classes).tolist()
            said = verdict(
                decision.findings,
                decision.max_subthreshold_score,
                sizes,
                names,
                options.looks,
                config.detection,
            )
        if not options.no_table:
            with timed("table written"):
                paths = tuple(f"train/class {i % classes:05d}/{i:09d}.jpg" for i in range(n))
                table = samples_table(paths, seen.labels, names, chosen_ids, seen.entropy[-1], {})
                RunFolder(Path(folder)).write_samples(table)
                del table, paths
            with timed("table read"):
                read_samples(Path(folder))
        bytes_of_table = sum(file.stat().st_size for file in Path(folder).glob("samples.*"))
    planted = {
        i for c in range(options.poisoned) for i in range(c, n, classes)[: round(SHARE * (n // classes))]
    }
    suspected = set(chosen_ids.suspected_poisoned.tolist())
    row = {
        **chosen(options),
        "seconds": seconds,
        "seconds_to_verdict": sum(
            seconds[k]["wall"] for k in ("mixtures", "mislabeled", "suspicion", "selection", "verdict")
        ),
        "bytes_at_most": peak(),
        "bytes_of_its_own_at_most": max(of["bytes"] for of in seconds.values()),
        "bytes_before": before,
        "bytes_of_table": bytes_of_table,
        "verdict": said.kind,
        "classes_found": sorted(finding.label for finding in decision.findings),
        "planted_found": len(planted & suspected) / max(len(planted), 1),
        "others_suspected": len(suspected - planted),
        "probably_mislabeled": int(wrong.sum()),
        "ids": digest(chosen_ids),
        "same_ids_as_alone": compare(decision, seen, options.poisoned, config),
    }
    print({key: value for key, value in row.items() if key != "seconds"})
    write_result(options.out, row, "CPU")


def digest(of: Selection) -> str:
    """SHA-256 of the ids of a Selection and of every image's rank."""
    summed = hashlib.sha256()
    for ids in (of.rank, of.suspected_poisoned, of.suspected_clean, of.trusted, of.unlabeled, of.mislabeled):
        summed.update(ids.numpy().data)
    return summed.hexdigest()


@contextmanager
def memory_at_most() -> Iterator[list[int]]:
    """[Bytes that this process had at most of its own, without pages of mapped files, which the system can take back],
    looked at every 50 ms.
    """
    held, ended = [0], threading.Event()

    def look() -> None:
        while True:
            status = Path("/proc/self/status").read_text()
            held[0] = max(held[0], 1024 * int(status.partition("RssAnon:")[2].split()[0]))
            if ended.wait(0.05):
                return

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield held
    finally:
        ended.set()
        looking.join()


def peak() -> int:
    """Bytes that this process had in memory at most, pages of mapped files among them."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()

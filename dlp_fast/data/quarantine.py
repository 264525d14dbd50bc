"""What is said of files that are left out: how many, why, and whether too many are missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from dlp_fast.data.scan_answers import LINK_OUT, Quarantined
from dlp_fast.runs.names import counted, printable

MANY = 0.02
"""Share of a set's image files whose loss is told by itself."""
MOST_OF_CLASS = 0.5
"""Share of a class's image files whose loss is told by itself."""
# What people and cameras call images; a readme that is no image is no loss.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".tif", ".tiff"),
    *(
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".gif",
        ".avif",
        ".jp2",
        ".j2k",
        ".jpf",
        ".jpx",
        ".heic",
        ".heif",
        ".hif",
    ),
    *(".jxl", ".psd", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2"),
)


VIDEO_SUFFIXES = (".mov", ".mp4", ".m4v", ".avi", ".mkv", ".webm", ".3gp", ".mpg", ".mpeg", ".wmv")
TEXT_SUFFIXES = (
    *(".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml", ".toml"),
    *(
        ".html",
        ".htm",
        ".pdf",
        ".py",
        ".ipynb",
        ".sh",
        ".log",
        ".names",
        ".cfg",
        ".ini",
        ".lst",
        ".md5",
        ".sha256",
    ),
)


def is_text_name(path: str) -> bool:
    """Whether a file of this name is a text, such as annotations or a readme, and meant to be no image."""
    return path.lower().endswith(TEXT_SUFFIXES)


def reasons_told(items: Sequence[Quarantined]) -> str:
    """`3 files: 2 truncated, 1 unsupported_format (HEIF: ...)`: counts by reason, and by format where it is known."""
    counts = Counter(item.reason for item in items)
    told = ", ".join(f"{count} {reason}{_kinds(reason, items)}" for reason, count in counts.most_common())
    return f"{counted(len(items), 'file')}: {told}"


def reasons_and_remedy(items: Sequence[Quarantined]) -> str:
    """`reasons_told`, and the option that reads files which links lead to, where such are among them."""
    links = any(item.reason == "link_leaves_folder" and item.detail == LINK_OUT for item in items)
    return reasons_told(items) + ("; --dataset.follow-links allows such links" if links else "")


def _kinds(reason: str, items: Sequence[Quarantined]) -> str:
    """` (58 HEIF: install pillow-heif or convert it; 2 Photoshop: convert it ...)` of formats that are not read."""
    of = [item for item in items if item.reason == reason]
    details = Counter(item.detail for item in of if _is_telling(item))
    if not details:
        return ""
    kinds = []
    for detail, count in details.most_common(4):
        name, _, advice = detail.partition("; ")
        number = f"{count} " if details.total() < len(of) or len(details) > 1 else ""
        kinds.append(number + printable(f"{name}: {advice}" if advice else name))
    more = f"; {len(details) - 4} more kinds" if len(details) > 4 else ""
    return f" ({'; '.join(kinds)}{more})"


def _is_telling(item: Quarantined) -> bool:
    """Whether the detail says what many files have in common and what to do, and not what is wrong with this one."""
    starts = {"not_an_image": ("a ", "an ", "JSON", "XML"), "unreadable": ("a link that", "No such file")}
    return item.reason == "unsupported_format" or item.detail.startswith(starts.get(item.reason, ("\0",)))


def cannot_be_used(items: Sequence[Quarantined]) -> str:
    """`2 files cannot be used: 1 truncated, 1 empty`."""
    files, _, told = reasons_told(items).partition(": ")
    return f"{files} cannot be used: {told}"


def is_loss(item: Quarantined) -> bool:
    """Whether what is left out was an image, or meant to be one, as is what stands in a column of images; a film beside
    photographs of a phone is none.
    """
    if item.path.lower().rpartition("/")[0].endswith(".parquet"):
        return True
    if item.path.lower().endswith(VIDEO_SUFFIXES):
        return False
    return item.reason not in ("not_an_image", "empty") or item.path.lower().endswith(IMAGE_SUFFIXES)


def losses_told(split: str, kept: Mapping[str, int], lost: Iterable[str]) -> str | None:
    """One sentence where more than `MANY` of a split's image files are left out, or `MOST_OF_CLASS` of a class's.

    Args: kept: images by class; lost: the class of each image that is left out.
    """
    missing = Counter(lost)
    there = sum(kept.values()) + missing.total()
    worst = {
        name: (count, count + kept.get(name, 0))
        for name, count in missing.most_common()
        if count >= MOST_OF_CLASS * (count + kept.get(name, 0))
    }
    if not worst and missing.total() <= MANY * there:
        return None
    told = (
        f"{split}: {missing.total():,} of {there:,} image files ({missing.total() / there:.0%}) are left out"
    )
    if worst:
        classes = [
            f"{printable(name)} lost {count:,} of {of:,}" for name, (count, of) in list(worst.items())[:4]
        ]
        told += f"; class {', '.join(classes)}" + (f" and {len(worst) - 4} more" if len(worst) > 4 else "")
    return f"{told}. The result speaks of the rest alone: mend the files, or find out why they are missing"

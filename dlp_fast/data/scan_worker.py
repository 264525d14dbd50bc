"""The child process of the scan: reads, hashes and decodes one file after the other, nothing else.

Run as a script, never imported by the package: it must start in a tenth of a second and hold no torch. One
JSON line of settings comes in, then one line of paths a batch; one line a file goes out as soon as it is
known, so that the parent can name the file at which this process died.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import types
import warnings

_HERE = os.path.dirname(os.path.abspath(__file__))
for _name, _folder in (("dlp_fast", os.path.dirname(_HERE)), ("dlp_fast.data", _HERE)):
    # the packages by name alone: what they would import has torch in it
    _package = types.ModuleType(_name)
    _package.__path__ = [_folder]
    sys.modules[_name] = _package

from dlp_fast.data import decode, scan_confine  # noqa: E402


def examine(settings: dict, relative: str) -> list:
    """`["ok", width, height, format, mode, bytes, mtime_ns, sha256, inode, look]` or `["no", reason, detail]`."""
    try:
        data, status = decode.read_regular(
            settings["root"],
            relative,
            max_bytes=settings["max_bytes"],
            follow_links=settings["follow_links"],
        )
        picture = decode.decode_picture(data, max_pixels=settings["max_pixels"], look=True)
    except decode.ImageRejected as rejected:
        return ["no", rejected.reason, rejected.detail]
    except MemoryError:
        return ["no", "too_large", "it needs more memory than the scan allows"]
    except Exception as error:
        return ["no", "unreadable", f"{type(error).__name__}: {error}"[:200]]
    width, height = picture.image.size
    digest = hashlib.sha256(data).hexdigest()
    size, mtime_ns, inode = status.st_size, status.st_mtime_ns, status.st_ino
    return ["ok", width, height, picture.format, picture.mode, size, mtime_ns, digest, inode, picture.look]


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    warnings.simplefilter("ignore")
    out = os.dup(1)
    silent = os.open(os.devnull, os.O_WRONLY)
    settings = json.loads(sys.stdin.buffer.readline())
    scan_confine.confine(settings["memory_bytes"])
    os.write(out, b"ready\n")
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    for line in sys.stdin.buffer:
        for relative in json.loads(line):
            os.write(out, json.dumps(examine(settings, relative)).encode("ascii") + b"\n")


if __name__ == "__main__":
    main()

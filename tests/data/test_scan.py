import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from corpus import bomb_png, encoded, jpeg, noise, png, write
from PIL import Image

from dlp_fast.data import scan_pool
from dlp_fast.data.scan import scan_files
from dlp_fast.data.scan_answers import REASONS, Quarantined
from dlp_fast.errors import ConfigError, ResourceError


def reasons(quarantine):
    return {item.path: item.reason for item in quarantine}


@pytest.fixture
def bad_worker(tmp_path, monkeypatch):
    """Replace the child's decoder by one that does as the file's first word tells it."""

    def install(actions: str):
        real = scan_pool.WORKER
        script = tmp_path / "worker_with_a_weak_decoder.py"
        script.write_text(
            "import importlib.util, os, sys, time\n"
            f"spec = importlib.util.spec_from_file_location('worker', {str(real)!r})\n"
            "worker = importlib.util.module_from_spec(spec)\n"
            "spec.loader.exec_module(worker)\n"
            "good = worker.decode.decode_picture\n"
            "def pipes():\n"
            "    return [fd for fd in range(3, 20) if os.path.exists(f'/proc/self/fd/{fd}')\n"
            "            and 'pipe' in os.readlink(f'/proc/self/fd/{fd}')]\n"
            "def decode_picture(data, **limits):\n"
            f"{actions}"
            "    return good(data, **limits)\n"
            "worker.decode.decode_picture = decode_picture\n"
            "worker.main()\n"
        )
        monkeypatch.setattr(scan_pool, "WORKER", script)

    return install


def test_record(tmp_path):
    write(tmp_path, {"a/1.jpg": jpeg(), "a/2.dat": png(height=5, width=6)})
    records, quarantine = scan_files(tmp_path, ["a/2.dat", "a/1.jpg"])
    assert quarantine == []
    first, second = records
    assert (first.path, first.format, first.width, first.height, first.mode) == (
        "a/2.dat",
        "PNG",
        6,
        5,
        "RGB",
    )
    assert second.sha256 == hashlib.sha256(jpeg()).hexdigest()
    assert second.bytes == len(jpeg())
    assert second.mtime_ns == os.stat(tmp_path / "a/1.jpg").st_mtime_ns


def test_size_is_told_after_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path, {"a.jpg": encoded(noise(24, 32), "JPEG", exif=exif.tobytes())})
    (record,), _ = scan_files(tmp_path, ["a.jpg"])
    assert (record.width, record.height) == (24, 32)


def test_no_files(tmp_path):
    assert scan_files(tmp_path, []) == ([], [])


def test_progress_ends_at_the_total(tmp_path):
    paths = [f"{i}.png" for i in range(200)]
    write(tmp_path, {path: png(height=4, width=4) for path in paths})
    seen = []
    scan_files(tmp_path, paths, progress=lambda *call: seen.append(call))
    assert seen[0] == ("checking images", 0, 200)
    assert seen[-1] == ("checking images", 200, 200)


def test_order_does_not_depend_on_the_number_of_workers(tmp_path):
    paths = [f"{i}.png" for i in range(300)]
    write(tmp_path, {path: png(seed=i, height=4, width=4) for i, path in enumerate(paths)})
    assert scan_files(tmp_path, paths, workers=1) == scan_files(tmp_path, paths, workers=4)


@pytest.mark.parametrize("how", ["os.abort()", "os.kill(os.getpid(), 11)", "os._exit(3)"])
def test_crash_costs_one_file(tmp_path, bad_worker, how):
    bad_worker(f"    if data.startswith(b'CRASH'): {how}\n")
    paths = [f"{i:03}.png" for i in range(150)]
    write(tmp_path, {path: png(height=4, width=4) for path in paths})
    bad = paths[0], paths[70], paths[71], paths[149]
    write(tmp_path, {path: b"CRASH" for path in bad})
    records, quarantine = scan_files(tmp_path, paths, workers=2)
    assert reasons(quarantine) == dict.fromkeys(bad, "decoder_crashed")
    assert "the decoding process ended by" in quarantine[0].detail
    assert len(records) == 146


def test_hang_costs_one_file(tmp_path, bad_worker):
    bad_worker("    if data.startswith(b'HANG'): time.sleep(600)\n")
    write(tmp_path, {"a": png(), "b": b"HANG", "c": png()})
    start = time.monotonic()
    records, quarantine = scan_files(tmp_path, ["a", "b", "c"], timeout_s=2)
    assert time.monotonic() - start < 30
    assert quarantine == [Quarantined("b", "timeout", "no end after 2 seconds")]
    assert [record.path for record in records] == ["a", "c"]


def test_memory_of_a_child_is_bounded(tmp_path, bad_worker):
    bad_worker("    if data.startswith(b'EAT'): bytearray(1 << 33)\n")
    write(tmp_path, {"a": png(), "b": b"EAT", "c": png()})
    _, quarantine = scan_files(tmp_path, ["a", "b", "c"], memory_mb=1500)
    assert reasons(quarantine) == {"b": "too_large"}


def test_picture_that_needs_more_memory_than_a_child_has(tmp_path):
    write(tmp_path, {"a": png(), "big": bomb_png(7000, 7000)})
    records, quarantine = scan_files(tmp_path, ["a", "big"], memory_mb=200)
    assert reasons(quarantine) == {"big": "too_large"}
    assert len(records) == 1


def test_largest_allowed_picture_fits_the_default_memory(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("P", (4000, 4000))
    write(tmp_path, {"big.png": encoded(image, "PNG", transparency=0, exif=exif.tobytes())})
    records, quarantine = scan_files(tmp_path, ["big.png"], max_megapixels=16)
    assert quarantine == []
    assert records[0].mode == "P"


def test_decoder_cannot_write_files(tmp_path, bad_worker):
    bad_worker(f"    open({str(tmp_path / 'loot')!r}, 'wb', buffering=0).write(data)\n")
    write(tmp_path, {"a": png()})
    _, quarantine = scan_files(tmp_path, ["a"])
    assert reasons(quarantine) == {"a": "unreadable"}
    assert not (tmp_path / "loot").exists() or (tmp_path / "loot").stat().st_size == 0


UNSHARE = "import ctypes, os, sys; sys.exit(ctypes.CDLL(None).unshare(0x40000000 | 0x10000000 * (os.geteuid() != 0)))"


@pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", UNSHARE], capture_output=True).returncode != 0,
    reason="this system lets no process give up its network",
)
def test_decoder_has_no_network(tmp_path, bad_worker):
    write(tmp_path, {"a": b"CALL", "b": png()})
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = server.getsockname()
        socket.create_connection(place, timeout=5).close()  # this process has one
        call = f"__import__('socket').create_connection({place!r}, timeout=5)"
        bad_worker(f"    if data.startswith(b'CALL'): {call}\n")
        records, quarantine = scan_files(tmp_path, ["a", "b"])
    assert [record.path for record in records] == ["b"]
    assert reasons(quarantine) == {"a": "unreadable"} and "Error: [Errno" in quarantine[0].detail


REFUSED = {
    "starts a program": "os.posix_spawn('/bin/true', ['true'], {})",
    "becomes a program": "os.execv('/bin/true', ['true'])",
    "forks": "os.fork()",
    "empties a file": "open(PRECIOUS, 'wb')",
    "opens a file to write": "os.open(PRECIOUS, os.O_RDWR)",
    "makes a file": "os.open(PRECIOUS + '2', os.O_CREAT)",
    "deletes a file": "os.unlink(PRECIOUS)",
    "renames a file": "os.rename(PRECIOUS, PRECIOUS + '2')",
    "changes rights": "os.chmod(PRECIOUS, 0o777)",
    "makes a folder": "os.mkdir(PRECIOUS + '2')",
    "signals its parent": "os.kill(os.getppid(), 0)",
    "signals a group": "os.killpg(os.getpgid(os.getppid()), 0)",
    "changes the limits of its parent": "__import__('resource').prlimit(os.getppid(), 4, (0, 0))",
    "opens a socket": "__import__('socket').socket()",
}


def test_decoder_is_refused_programs_writing_and_signals(tmp_path, bad_worker):
    """Everything that a decoder needs still works: every format is read, threads start, and it can abort."""
    if not pytest.importorskip("seccompy").supported():
        pytest.skip("this kernel filters no system calls")
    precious = write(tmp_path, {"precious": b"mine"}) / "precious"
    bad_worker(f"    PRECIOUS = {str(precious)!r}\n    if data.startswith(b'DO '): exec(data[3:])\n")
    thread = "t = __import__('threading').Thread(target=print); t.start(); t.join(); raise OSError('joined')"
    tried = {name: f"DO {how}".encode() for name, how in (*REFUSED.items(), ("thread", thread))}
    good = {name: encoded(Image.new("RGB", (9, 9)), name) for name in ("JPEG", "PNG", "AVIF", "TIFF", "WEBP")}
    write(tmp_path, tried | good | {"aborts": b"DO os.abort()"})
    records, quarantine = scan_files(tmp_path, [*tried, "aborts", *good])
    assert {record.path for record in records} == set(good)
    details = {item.path: item.detail for item in quarantine}
    assert "SIGABRT" in details.pop("aborts") and "joined" in details.pop("thread")
    assert details.keys() == REFUSED.keys()
    assert [name for name, detail in details.items() if not detail.startswith("PermissionError")] == []
    assert precious.read_bytes() == b"mine"


def test_open_files_of_a_child_are_bounded(tmp_path, bad_worker):
    bad_worker("    if data.startswith(b'OPEN'): kept = [open(os.devnull) for _ in range(100)]\n")
    write(tmp_path, {"a": b"OPEN", "b": png()})
    records, quarantine = scan_files(tmp_path, ["a", "b"])
    assert [record.path for record in records] == ["b"]
    assert "Too many open files" in quarantine[0].detail


def test_chatter_on_the_standard_streams_does_no_harm(tmp_path, bad_worker):
    bad_worker("    os.write(1, b'noise\\n'); os.write(2, b'noise\\n')\n")
    write(tmp_path, {"a": png(), "b": png()})
    assert len(scan_files(tmp_path, ["a", "b"])[0]) == 2


@pytest.mark.parametrize(
    "answer",
    [
        "b'[]'",
        "b'{'",
        "b'[' * 100_000",
        "b'x' * 9_999_999",
        """b'["ok"]'""",
        """b'["ok", 1, 1, 1, 1, 1, 1, 1, 1]'""",
        """b'["ok", 99999999999, 1, "PNG", "RGB", 1, 1, "", 1, [-1, 0, 0, 0]]'""",
        """b'["ok", 1, 1, "PNG", "RGB", 1, 1, "", 1, [-1, 0, NaN, 0]]'""",
        """b'["ok", 1, 1, "PNG", "RGB", 1, 1, "", 1, [-1, 0]]'""",
        """b'["ok", 1, 1, "PNG", "RGB", 1, 1, "", 1, [70000, 0, 0, 0]]'""",
        """b'["no", "fine", ""]'""",
    ],
)
def test_decoder_that_was_taken_over(tmp_path, bad_worker, answer):
    """The child's private end of the pipe is at hand to code that runs in it; what it says is checked."""
    action = f"[os.write(fd, {answer} + b'\\n') for fd in pipes()]; time.sleep(60)"
    bad_worker(f"    if data.startswith(b'EVIL'): {action}\n")
    write(tmp_path, {"a": png(), "b": b"EVIL", "c": png()})
    records, quarantine = scan_files(tmp_path, ["a", "b", "c"], timeout_s=20)
    assert reasons(quarantine) == {"b": "decoder_crashed"}
    assert [record.path for record in records] == ["a", "c"]


def test_worker_that_does_not_start(tmp_path, monkeypatch):
    script = tmp_path / "broken.py"
    script.write_text("raise SystemExit('no Pillow here')\n")
    monkeypatch.setattr(scan_pool, "WORKER", script)
    write(tmp_path, {"a": png()})
    with pytest.raises(ResourceError, match=r"did not start \(no Pillow here\)"):
        scan_files(tmp_path, ["a"])


def test_children_are_gone_afterwards(tmp_path, bad_worker):
    def fail(*_):
        raise KeyboardInterrupt

    write(tmp_path, {"a": png()})
    with pytest.raises(KeyboardInterrupt):
        scan_files(tmp_path, ["a"], progress=lambda what, done, total: done and fail())
    with contextlib.suppress(ChildProcessError):
        assert os.waitpid(-1, os.WNOHANG) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_megapixels": 0}, "max_megapixels: expected more than 0 and at most 89, got 0"),
        ({"max_megapixels": 200}, "max_megapixels: expected more than 0 and at most 89, got 200"),
        ({"max_megapixels": float("nan")}, "max_megapixels: expected more than 0"),
        ({"max_megabytes": -1}, "max_megabytes: expected more than 0, got -1"),
        ({"workers": 0}, "workers: expected at least 1, got 0"),
    ],
)
def test_bad_limits(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        scan_files(tmp_path, [], **arguments)


def test_megabytes_limit(tmp_path):
    write(tmp_path, {"a": png() + bytes(20_000), "b": png()})
    records, quarantine = scan_files(tmp_path, ["a", "b"], max_megabytes=0.01)
    assert reasons(quarantine) == {"a": "too_large"}
    assert "the limit is 10000" in quarantine[0].detail
    assert len(records) == 1


def test_numpy_in_the_current_folder_is_not_imported(tmp_path, monkeypatch):
    write(tmp_path, {"a": png(), "numpy.py": b"raise SystemExit('taken over')", "json.py": b"1/0"})
    monkeypatch.chdir(tmp_path)
    assert len(scan_files(tmp_path, ["a"])[0]) == 1


class TestCache:
    @pytest.fixture
    def folder(self, tmp_path):
        return write(tmp_path / "images", {"a": png(), "b": jpeg(), "c": b"no image", "d": b""})

    @pytest.fixture
    def cache(self, tmp_path):
        return tmp_path / "scan.jsonl"

    def no_worker(self, monkeypatch):
        monkeypatch.setattr(scan_pool, "WORKER", "/nonexistent")

    def test_second_scan_starts_no_process(self, folder, cache, monkeypatch):
        first = scan_files(folder, ["a", "b", "c", "d"], cache=cache)
        self.no_worker(monkeypatch)
        assert scan_files(folder, ["a", "b", "c", "d"], cache=cache) == first

    def test_changed_file_is_scanned_again(self, folder, cache):
        scan_files(folder, ["a", "b"], cache=cache)
        (folder / "a").write_bytes(png(height=9))
        records, _ = scan_files(folder, ["a", "b"], cache=cache)
        assert records[0].height == 9

    def test_other_limits_are_another_scan(self, folder, cache):
        scan_files(folder, ["a"], cache=cache)
        _, quarantine = scan_files(folder, ["a"], cache=cache, max_megapixels=1e-6)
        assert reasons(quarantine) == {"a": "too_large"}

    @pytest.mark.parametrize("damage", [b"", b"nonsense", b"[]\n{}", b'{"dlp_fast_scan_cache": 99}\n'])
    def test_useless_cache_is_replaced(self, folder, cache, damage, monkeypatch):
        cache.write_bytes(damage)
        first = scan_files(folder, ["a", "b"], cache=cache)
        self.no_worker(monkeypatch)
        assert scan_files(folder, ["a", "b"], cache=cache) == first

    def test_cut_and_nonsense_lines_are_scanned_again(self, folder, cache):
        first = scan_files(folder, ["a", "b", "c"], cache=cache)
        lines = cache.read_bytes().splitlines()
        cache.write_bytes(b"\n".join([*lines[:2], b'["a", 1, 2, 3, ["ok"]]', b"7", lines[2][:20]]))
        assert scan_files(folder, ["a", "b", "c"], cache=cache) == first

    def test_what_may_pass_is_not_remembered(self, folder, cache):
        scan_files(folder, ["a", "missing"], cache=cache)
        assert "missing" not in cache.read_text()
        write(folder, {"missing": png()})
        assert len(scan_files(folder, ["a", "missing"], cache=cache)[0]) == 2

    def test_names_that_are_not_utf8(self, folder, cache, monkeypatch):
        name = os.fsdecode(b"\xff\xfe\n.png")
        (folder / name).write_bytes(png())
        first = scan_files(folder, [name], cache=cache)
        self.no_worker(monkeypatch)
        assert scan_files(folder, [name], cache=cache) == first
        assert first[0][0].path == name

    def test_unusable_place(self, folder, tmp_path):
        with pytest.raises(ResourceError, match=r"the scan cache .* cannot be used"):
            scan_files(folder, ["a"], cache=tmp_path)

    def test_lines_are_json(self, folder, cache):
        scan_files(folder, ["a", "c"], cache=cache)
        assert all(json.loads(line) for line in cache.read_text().splitlines())


class TestBetweenListingAndScan:
    def test_link_put_in_after_the_listing(self, tmp_path):
        root = write(tmp_path / "root", {"c/1": png()})
        write(tmp_path, {"secret": png()})
        (root / "c/1").unlink()
        os.symlink(tmp_path / "secret", root / "c/1")
        _, quarantine = scan_files(root, ["c/1"])
        assert reasons(quarantine) == {"c/1": "link_leaves_folder"}

    def test_fifo_put_in_after_the_listing(self, tmp_path):
        os.mkfifo(tmp_path / "1")
        _, quarantine = scan_files(tmp_path, ["1"], timeout_s=20)
        assert reasons(quarantine) == {"1": "not_a_regular_file"}


def test_mutated_files_never_harm_the_parent(tmp_path):
    """500 files with bytes flipped, cut, doubled and zeroed: each ends as a record or with a known reason."""
    random = np.random.default_rng(11)
    image = Image.fromarray(noise(40, 40))
    sources = [
        encoded(image, "JPEG"),
        encoded(image, "JPEG", progressive=True),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(image, "PNG"),
        encoded(image.quantize(16), "PNG"),
        encoded(image, "BMP"),
        encoded(image, "WEBP"),
        encoded(image, "TIFF", compression="tiff_lzw"),
        encoded(image, "TIFF", compression="tiff_deflate"),
        encoded(image, "PPM"),
    ]
    paths = []
    for i in range(500):
        data = bytearray(sources[i % len(sources)])
        for _ in range(int(random.integers(1, 12))):
            at = int(random.integers(0, min(len(data), 400) if random.random() < 0.5 else len(data)))
            kind = random.integers(0, 5)
            if kind < 3:
                data[at] ^= int(random.integers(1, 256))
            elif kind == 3:
                data[at : at + 4] = b"\xff\xff\xff\xff"
            else:
                data[at : at + int(random.integers(1, 50))] = b""
            data = data or bytearray(b"\0")
        paths.append(f"{i:03}")
        (tmp_path / paths[-1]).write_bytes(data)
    records, quarantine = scan_files(tmp_path, paths, timeout_s=20)
    assert len(records) + len(quarantine) == 500
    assert {item.reason for item in quarantine} <= set(REASONS)
    assert not [item for item in quarantine if item.reason == "timeout"]
    assert 20 < len(records) < 480

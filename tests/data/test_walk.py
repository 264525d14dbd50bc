"""What lies in a folder: files and links, whole classes behind links, system folders, run folders."""

import os
import socket

import pytest
from corpus import png, two_classes, write

from dlp_fast.data.index import index_folder
from dlp_fast.data.scan import scan_files
from dlp_fast.data.walk import Walk
from dlp_fast.errors import DataError


def reasons(quarantine):
    return {item.path: item.reason for item in quarantine}


def walked(root, follow_links=True, **more):
    """(classes with sorted paths, Walk) of `root` as one split."""
    walk = Walk(os.path.realpath(root), follow_links)
    classes = walk.classes("", **more)
    walk.follow()
    return {name: sorted(files) for name, files in classes.items()}, walk


class TestListing:
    def listing(self, root):
        walk = Walk(os.path.realpath(root))
        return sorted(walk.classes("")["c"]), reasons(walk.quarantine)

    def test_recursive_and_hidden(self, tmp_path):
        write(
            tmp_path,
            {"c/1": b"", "c/deep/er/2": b"", "c/.hidden": b"", "c/.thumbs/3": b"", "c/deep/.x": b""},
        )
        assert self.listing(tmp_path) == (["c/1", "c/deep/er/2"], {})

    def test_fifo_socket_device(self, tmp_path):
        (tmp_path / "c").mkdir()
        os.mkfifo(tmp_path / "c/fifo")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(os.path.relpath(tmp_path / "c/socket"))
            os.symlink("/dev/zero", tmp_path / "c/zero")
            files, quarantine = self.listing(tmp_path)
        assert files == []
        assert quarantine == {
            "c/fifo": "not_a_regular_file",
            "c/socket": "not_a_regular_file",
            "c/zero": "link_leaves_folder",
        }

    def test_links(self, tmp_path):
        root = write(tmp_path / "root", {"c/1": b"x", "c/sub/2": b"y"})
        write(tmp_path, {"outside/3": b"z", "root-twin/4": b"z"})
        links = {
            "inside": "1",
            "out": "../../outside/3",
            "twin": "../../root-twin/4",
            "out_folder": "../../outside",
            "in_folder": "sub",
            "loop": "loop",
            "up": "..",
            "dangling": "nothing",
            "dangling_out": "/nonexistent/file",
            "etc": "/etc/passwd",
        }
        for name, target in links.items():
            os.symlink(target, root / "c" / name)
        files, quarantine = self.listing(root)
        assert files == ["c/1", "c/inside", "c/sub/2"]
        assert quarantine == {
            "c/out": "link_leaves_folder",
            "c/twin": "link_leaves_folder",
            "c/out_folder": "link_leaves_folder",
            "c/in_folder": "not_a_regular_file",
            "c/loop": "unreadable",
            "c/up": "not_a_regular_file",
            "c/dangling": "unreadable",
            "c/dangling_out": "unreadable",
            "c/etc": "link_leaves_folder",
        }

    def test_hard_link_is_a_file(self, tmp_path):
        write(tmp_path, {"c/1": png()})
        os.link(tmp_path / "c/1", tmp_path / "c/2")
        assert self.listing(tmp_path) == (["c/1", "c/2"], {})

    @pytest.mark.skipif(os.geteuid() == 0, reason="permission bits do not bind root")
    def test_unreadable(self, tmp_path):
        write(tmp_path, {"c/1": png(), "c/closed/2": png()})
        os.chmod(tmp_path / "c/1", 0)
        os.chmod(tmp_path / "c/closed", 0)
        files, quarantine = self.listing(tmp_path)
        os.chmod(tmp_path / "c/closed", 0o700)
        assert quarantine == {"c/closed": "unreadable"}
        assert reasons(scan_files(tmp_path, files)[1]) == {"c/1": "unreadable"}


class TestLinkedClass:
    @pytest.fixture
    def root(self, tmp_path):
        write(
            tmp_path, {"root/cat/1": b"1", "root/dog/2": b"2", "store/owl/3": b"3", "store/owl/deep/4": b"4"}
        )
        return tmp_path / "root"

    def test_stops_unasked(self, root):
        os.symlink("../store/owl", root / "owl")
        with pytest.raises(
            DataError, match=r"root: class owl is a link to .*store/owl, and .*--dataset.follow-links"
        ):
            walked(root, follow_links=False)

    def test_several(self, root):
        os.symlink("../store/owl", root / "owl")
        os.symlink("../store", root / "all")
        with pytest.raises(
            DataError, match=r"classes all, owl are links to other folders, such as .*store, and"
        ):
            walked(root, follow_links=False)

    def test_into_what_is_not_read(self, root):
        write(root, {".store/yak/5": b"5"})
        os.symlink(".store/yak", root / "yak")
        with pytest.raises(DataError, match="class yak is a link"):
            walked(root, follow_links=False)

    def test_to_another_class_loses_nothing(self, root):
        os.symlink("cat", root / "again")
        classes, walk = walked(root, follow_links=False)
        assert classes == {"cat": ["cat/1"], "dog": ["dog/2"]}
        assert [note for note in walk.notes() if "read once" in note and "again" in note]

    def test_that_leads_nowhere_is_told(self, root):
        os.symlink("/nonexistent/owl", root / "owl")
        for follow in (False, True):
            classes, walk = walked(root, follow)
            assert list(classes) == ["cat", "dog"]
            assert any("links that lead nowhere: owl" in note for note in walk.notes())

    @pytest.mark.parametrize(
        "target", ["../store/owl", "../chain", None], ids=["relative", "chain", "absolute"]
    )
    def test_is_followed(self, root, target):
        os.symlink("store/owl", root.parent / "chain")
        os.symlink(target or root.parent / "store/owl", root / "owl")
        classes, walk = walked(root)
        assert classes["owl"] == ["owl/3", "owl/deep/4"]
        assert walk.quarantine == [] and walk.notes() == []

    def test_each_folder_once_and_real_ones_first(self, root):
        os.symlink("../store/owl", root / "a")
        os.symlink("../store/owl", root / "b")
        os.symlink("dog", root / "again")
        classes, walk = walked(root)
        assert classes == {"a": ["a/3", "a/deep/4"], "cat": ["cat/1"], "dog": ["dog/2"]}
        assert any(note.endswith(": again, b") for note in walk.notes())

    @pytest.mark.parametrize("target", ["..", ".", "../..", "/", "../cat"])
    def test_cycles(self, root, target):
        os.symlink(target, root / "cat/loop")
        classes, walk = walked(root)
        assert classes == {"cat": ["cat/1"], "dog": ["dog/2"]}
        assert any("cat/loop" in note for note in walk.notes())

    def test_cycle_outside(self, root):
        os.symlink("../store/owl", root / "owl")
        os.symlink("..", root.parent / "store/owl/up")
        os.symlink("../../root", root.parent / "store/owl/home")
        classes, walk = walked(root)
        assert classes["owl"] == ["owl/3", "owl/deep/4"]
        assert any("owl/home, owl/up" in note for note in walk.notes())

    def test_links_within_what_is_linked(self, root):
        write(root.parent, {"far/5": b"5"})
        os.symlink("../store/owl", root / "owl")
        os.symlink("../../far", root.parent / "store/owl/far")
        assert walked(root)[0]["owl"] == ["owl/3", "owl/deep/4", "owl/far/5"]

    def test_folder_within_a_class(self, root):
        os.symlink("../../store/owl", root / "cat/more")
        classes, walk = walked(root, follow_links=False)
        assert classes["cat"] == ["cat/1"]
        assert reasons(walk.quarantine) == {"cat/more": "link_leaves_folder"}
        assert any("not followed, and so left out: cat/more; to read them" in note for note in walk.notes())
        assert walked(root)[0]["cat"] == ["cat/1", "cat/more/3", "cat/more/deep/4"]

    def test_files(self, root):
        for name, target in {
            "out": "../../store/owl/3",
            "in": "1",
            "zero": "/dev/zero",
            "none": "nothing",
        }.items():
            os.symlink(target, root / "cat" / name)
        classes, walk = walked(root)
        assert classes["cat"] == ["cat/1", "cat/in", "cat/out"]
        assert reasons(walk.quarantine) == {"cat/zero": "not_a_regular_file", "cat/none": "unreadable"}


def test_followed_files_are_scanned(tmp_path):
    write(tmp_path, {"store/owl/1.png": png(), "store/2.png": png(1)})
    two_classes(tmp_path / "root")
    os.symlink("../store/owl", tmp_path / "root/owl")
    os.symlink("../../store/2.png", tmp_path / "root/cat/out.png")
    index, quarantine = index_folder(tmp_path / "root", follow_links=True)
    assert {"owl/1.png", "cat/out.png"} < set(index.paths) and quarantine == []
    assert index.follow_links
    refused = scan_files(tmp_path / "root", ["cat/out.png"])[1]
    assert reasons(refused) == {"cat/out.png": "link_leaves_folder"}


class TestLeftOut:
    @pytest.mark.parametrize(
        "name",
        [
            "@eaDir",
            "__MACOSX",
            "lost+found",
            "#recycle",
            "$RECYCLE.BIN",
            "System Volume Information",
            "@Recycle",
        ],
    )
    def test_system_folders(self, tmp_path, name):
        write(tmp_path, {"cat/1": b"1", f"cat/{name}/x.png": b"x", f"{name}/y.png": b"y", "dog/2": b"2"})
        classes, walk = walked(tmp_path, follow_links=False)
        assert classes == {"cat": ["cat/1"], "dog": ["dog/2"]}
        assert walk.quarantine == []
        (note,) = walk.notes()
        assert "left out, as files of the operating system" in note and f"{name}, cat/{name}" in note

    def test_system_files(self, tmp_path):
        write(
            tmp_path,
            {f"cat/{name}": b"x" for name in ("1", "Thumbs.db", "desktop.ini", "Icon\r", "a@SynoEAStream")},
        )
        classes, walk = walked(tmp_path)
        assert classes == {"cat": ["cat/1"]}
        assert len(walk.notes()) == 1 and "Icon\\r" in walk.notes()[0]

    def test_ordinary_names_are_no_systems(self, tmp_path):
        names = ["lost", "found", "recycle", "System", "trash", "@home", "#1", "thumbs"]
        write(tmp_path, {f"{name}/1": b"1" for name in names})
        assert sorted(walked(tmp_path)[0]) == sorted(names)

    def test_hidden_folder_that_may_be_a_class(self, tmp_path):
        write(
            tmp_path,
            {"java/1": b"1", "c/1": b"1", ".net/1": b"1", ".git/x": b"", ".ipynb_checkpoints/1": b""},
        )
        classes, walk = walked(tmp_path)
        assert sorted(classes) == ["c", "java"]
        assert [note.rpartition(": ")[2] for note in walk.notes()] == [".net"]

    def test_run_folders(self, tmp_path):
        run = {"config.resolved.yaml": b"a: 1", "metrics.jsonl": b"", "report.png": b""}
        write(tmp_path, {"cat/1": b"1", "dog/2": b"2"})
        for place in ("run", "runs/2026-01-01-x", "cat/deep/run"):
            write(tmp_path, {f"{place}/{name}": data for name, data in run.items()})
        write(tmp_path, {"runs/nohup.out": b"log"})
        classes, walk = walked(tmp_path)
        assert classes == {"cat": ["cat/1"], "dog": ["dog/2"]}
        (note,) = walk.notes()
        assert note.endswith("left out, as run folders of dlp_fast: run, runs, cat/deep/run")

    def test_class_called_runs(self, tmp_path):
        write(tmp_path, {"runs/1.png": b"1", "walks/config.resolved.yaml": b"", "jumps/sub/1.png": b""})
        assert sorted(walked(tmp_path)[0]) == ["jumps", "runs", "walks"]

    def test_asked_for(self, tmp_path):
        write(tmp_path, {"cat/1": b"1", "holdout/cat/1": b"1"})
        assert list(walked(tmp_path, left_out=["holdout"])[0]) == ["cat"]

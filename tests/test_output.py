"""Commands whose output goes to streams of every kind: in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tiny import ROOT, options

from dlp_fast.commands.__main__ import COMMANDS

PYTHON = f'"{sys.executable}" -m dlp_fast'


def shell(line: str, **environment: str) -> subprocess.CompletedProcess:
    of = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(["bash", "-c", line], env=of, capture_output=True, timeout=300)


def again(run) -> str:
    """The command of a run that is finished: it prints its results and trains nothing."""
    return f'{PYTHON}.run --out "{run}" {" ".join(options())}'


@pytest.mark.parametrize("encoding", ["latin-1", pytest.param("ascii", marks=pytest.mark.slow)])
def test_another_encoding(tiny_run, encoding):
    done = shell(again(tiny_run[0]), PYTHONIOENCODING=encoding)
    said = done.stdout.decode(encoding)
    assert done.returncode == 0, done.stderr.decode(encoding)
    assert "Traceback" not in said + done.stderr.decode(encoding)
    assert "verdict:" in said and "report.html" in said and "clean accuracy" in said


@pytest.mark.parametrize(
    "closed", [">&- 2>&- <&-", *(pytest.param(one, marks=pytest.mark.slow) for one in (">&-", "2>&-"))]
)
def test_no_stream_at_all(tiny_run, tmp_path, closed):
    out = tmp_path / "evaluated"
    line = f'cp -r "{tiny_run[0]}" "{out}" && rm "{out}/report.html" && {PYTHON}.report "{out}" {closed}'
    done = shell(line)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stdout + done.stderr
    page = (out / "report.html").read_text()
    assert page.startswith("<!") and "written:" not in page[:200]


def test_a_reader_that_leaves():
    """`| head -1`: silence, and the exit code of a program that SIGPIPE ended."""
    for command in (f"{PYTHON}.commands --help", f"{PYTHON}.run --help"):
        done = shell(f"{{ {command}; echo $? >&2; }} | true")
        assert done.stderr.decode().strip() in ("0", "141"), done.stderr  # 0: it was done before `true` was
    done = shell(
        f'set -o pipefail; {PYTHON}.run --help | {{ read first; exec <&-; sleep 1; echo "$first"; }}'
    )
    assert done.stderr == b""
    assert done.returncode in (0, 141)


@pytest.mark.slow
def test_a_run_whose_log_nobody_reads_any_more(tmp_path):
    """It ends in silence with its checkpoint, and the same command goes on."""
    out = tmp_path / "run"
    command = f'{PYTHON}.run --out "{out}" {" ".join(options())}'
    done = shell(f"set -o pipefail; {command} 2>&1 | head -1")
    assert done.returncode == 141
    assert done.stderr == b""
    assert done.stdout.decode().startswith("digits:")
    assert not (out / "results.json").exists()
    done = shell(command)
    assert done.returncode == 0, done.stderr
    assert (out / "report.html").is_file()


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_soon_there(command):
    """Without torch. CPU seconds: other work of the machine does not count."""
    line = (
        "import resource, sys\n"
        "from dlp_fast.commands.__main__ import main\n"
        f"sys.argv = ['dlp-fast', *{command.split()!r}, '--help']\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "of = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print('torch' in sys.modules, of.ru_utime + of.ru_stime)"
    )
    done = subprocess.run(
        [sys.executable, "-c", line], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    loaded, spent = done.stdout.split()[-2:]
    assert loaded == "False" and float(spent) < 1.5, (command, loaded, spent)


def test_a_run_says_at_once_what_it_does(tmp_path):
    """Its first line comes before torch is loaded: seconds pass there on a busy machine."""
    line = (
        "import sys\n"
        "class Blocked:\n"  # what loads torch fails
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch':\n            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        f"sys.argv = ['run', '--data', {str(tmp_path)!r}, '--out', 'runs/x']\n"
        "from dlp_fast.commands.run import main\n"
        "try:\n    main()\n"
        "except ImportError:\n    pass"
    )
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert f"images of {tmp_path}; the run folder is runs/x" in done.stderr, done.stderr


def test_a_command_ends_when_it_says_so():
    """Python's last collection walks over all of torch, for seconds, unless it is told not to. CPU seconds again."""
    code = (
        "import atexit, os\n"
        "atexit.register(lambda: os.write(1, repr(sum(os.times()[:2])).encode() + b'\\n'))\n"  # runs last
        "import torch._dynamo\n"
        "from dlp_fast.commands.guard import guarded\n"
        "guarded(lambda: None)\n"
    )
    line = (
        "import resource, subprocess, sys\n"
        f"done = subprocess.run([sys.executable, '-c', {code!r}], stdout=subprocess.PIPE)\n"
        "of = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(of.ru_utime + of.ru_stime - float(done.stdout))"
    )
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert float(done.stdout) < 0.6, done.stdout + done.stderr

"""What CI installs: every package locked with its hash; what is said of known vulnerabilities."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from tiny import ROOT

CI = ROOT / ".ci"
pytestmark = pytest.mark.skipif(not CI.is_dir(), reason="only in a clone")


def script(name: str):
    spec = importlib.util.spec_from_file_location(f"ci_{name}", CI / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestLock:
    def test_holds_what_is_asked_for_and_a_hash_of_each(self):
        lock = script("lock")
        lines = [line for line in lock.LOCK.read_text().splitlines() if not line.startswith("#")]
        found = [re.fullmatch(r"([a-z0-9.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}", line) for line in lines]
        assert all(found) and len(found) > 50
        versions = {match[1]: Version(match[2]) for match in found}
        for text in lock.wanted(ROOT / "pyproject.toml"):
            asked = Requirement(text)
            assert versions[asked.name.lower()] in asked.specifier, f"{text}: run `make lock`"

    def test_lines(self):
        item = {
            "metadata": {"name": "Foo_Bar", "version": "1.0"},
            "download_info": {"archive_info": {"hashes": {"sha256": "ab"}}},
        }
        assert script("lock").lines_of({"install": [item]}) == ["foo-bar==1.0 --hash=sha256:ab"]


class TestAudit:
    def test_a_vulnerability(self):
        known = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
        fine = {"name": "b", "version": "1", "vulns": []}
        code, lines = script("audit").told(json.dumps({"dependencies": [known, fine]}), "")
        assert code == 1
        assert lines == ["a 1: CVE-1, mended in 2", "audit: 2 packages looked up, 1 known vulnerabilities"]

    @pytest.mark.parametrize(
        ("output", "errors"),
        [
            ("", "Traceback\nrequests.exceptions.ConnectionError: no route to host\n"),
            (
                "",
                "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed\nTip: another service\n",
            ),
            (json.dumps({"dependencies": [{"name": "a", "skip_reason": "not found"}]}), ""),
        ],
    )
    def test_no_answer_is_one_line(self, output, errors):
        code, lines = script("audit").told(output, errors)
        assert code == 0 and len(lines) == 1 and lines[0].startswith("audit skipped: ")

    @pytest.mark.parametrize(
        ("output", "errors"),
        [
            ("", "ERROR: the lock has no hash of torch"),
            ("{", ""),
            (
                "null",
                "ValueError after\nrequests.exceptions.ConnectionError: in its cause\nKeyError: 'vulns'",
            ),
        ],
    )
    def test_what_fails_otherwise_is_told_and_fails(self, output, errors):
        code, lines = script("audit").told(output, errors)
        assert code == 2
        assert lines == [
            *errors.splitlines(),
            "audit failed: pip-audit did not answer with a list of packages",
        ]


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
class TestMakeEnv:
    def installs(self, *given: str) -> list[str]:
        """What `make env` would install by pip, in order."""
        done = subprocess.run(
            ["make", "-n", "-B", *given, "env"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return [line for line in done.stdout.splitlines() if "pip install" in line]

    def test_locked_it_installs_the_lock_and_the_package_alone(self):
        lock, package = self.installs("LOCKED=1")
        assert "--require-hashes -r .ci/requirements.lock" in lock
        assert '--no-deps -e ".[' in package

    def test_else_it_installs_what_is_asked_for(self):
        asked = " ".join(self.installs())
        for text in (*script("lock").BUILD, *script("lock").FORMATS):
            assert text in asked.replace('"', ""), f"{text} is locked and not in the Makefile"
        assert "requirements.lock" not in asked and "--no-deps" not in asked

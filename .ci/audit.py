"""Looks the locked packages up in the data base of known vulnerabilities; one line where it cannot be reached.

Run by `make audit`, which installs pip-audit. Exit code 1: a package has a known vulnerability; 2: pip-audit failed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parent / "requirements.lock"
# What pip-audit says, or the error that it ends with, where the network is at fault and not the lock or itself.
UNREACHED = re.compile(
    r"Could not connect to .* feed|requests\.exceptions\.(ConnectionError|ProxyError|ConnectTimeout|ReadTimeout): .*\Z"
)


def told(output: str, errors: str) -> tuple[int, list[str]]:
    """(exit code, lines) from what pip-audit printed as JSON, and as errors where it printed none."""
    try:
        packages = json.loads(output)["dependencies"]
    except (ValueError, LookupError, TypeError):
        unreached = UNREACHED.search(errors.strip())
        if unreached:
            said = unreached[0][:200]
            return 0, [f"audit skipped: the data base of vulnerabilities cannot be reached ({said})"]
        return 2, [*errors.strip().splitlines(), "audit failed: pip-audit did not answer with a list of packages"]
    found = [
        f"{package['name']} {package['version']}: {one['id']}"
        + (f", mended in {', '.join(one['fix_versions'])}" if one.get("fix_versions") else "")
        for package in packages
        for one in package.get("vulns", [])
    ]
    skipped = sum("skip_reason" in package for package in packages)
    said = f"audit: {len(packages) - skipped} packages looked up, {len(found)} known vulnerabilities"
    if skipped == len(packages):
        return 0, ["audit skipped: what answers for the data base of vulnerabilities knows none of the packages"]
    return int(bool(found)), [*found, said + (f", {skipped} not known there" if skipped else "")]


def main() -> int:
    ask = ["--disable-pip", "--require-hashes", "--progress-spinner", "off", "--timeout", "15", "-f", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *ask, "-r", str(LOCK)], capture_output=True, text=True
    )
    code, lines = told(done.stdout, done.stderr)
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())

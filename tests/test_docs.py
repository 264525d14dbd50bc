"""What the documentation says can be done can be done."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest
import tyro
from PIL import Image
from tiny import CONFIG, ROOT, command, threads_kept

import dlp_fast
from dlp_fast.commands.options import read_options

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"^\s+(?:\.venv/bin/)?python -m dlp_fast\.(\w+)(.*)$", re.MULTILINE)


def commands() -> list[tuple[str, str, str]]:
    """(page, module, options) of every command in a code block."""
    return [
        (page.name, found[1], found[2].strip())
        for page in PAGES
        for found in COMMAND.finditer(page.read_text())
    ]


def parse(module: str, arguments: list[str]) -> None:
    from dlp_fast.doctor import DoctorConfig
    from dlp_fast.evaluate import EvaluateConfig
    from dlp_fast.export import ExportConfig
    from dlp_fast.poison import PoisonConfig
    from dlp_fast.report.__main__ import ReportConfig
    from dlp_fast.reproduce.__main__ import ReproduceConfig

    if module == "run":
        read_options(arguments)
        return
    config = {
        "doctor": DoctorConfig,
        "evaluate": EvaluateConfig,
        "export": ExportConfig,
        "poison": PoisonConfig,
        "report": ReportConfig,
        "reproduce": ReproduceConfig,
    }[module]
    tyro.cli(config, args=arguments)


def test_there_are_commands():
    assert {module for _, module, _ in commands()} >= {
        "run",
        "poison",
        "evaluate",
        "doctor",
        "export",
        "reproduce",
    }


@pytest.mark.parametrize(("page", "module", "options"), commands())
def test_options_exist(page, module, options):
    parse(module, shlex.split(options))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http", "mailto")):
            assert (page.parent / target).exists(), f"{page.name} -> {target}"


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.relative_to(ROOT / "docs").as_posix() in text


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_never_guaranteed(page):
    assert "guaranteed clean" not in page.read_text().lower()


def test_the_pages_own_folder_works(tmp_path, monkeypatch):
    """The commands of "My own folder", in order, on a folder of that name; short where a page leaves it to the run."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for k, name in enumerate(("cats", "dogs")):
        (tmp_path / "my_images" / name).mkdir(parents=True)
        for i in range(30):
            pixels = rng.integers(0, 90, (16, 16, 3), dtype=np.uint8) + np.uint8(100 * k)
            Image.fromarray(pixels).save(tmp_path / "my_images" / name / f"{i:04d}.png")
    short = []
    for key, value in CONFIG.items():
        for name, one in value.items() if isinstance(value, dict) else [("", value)]:
            short += [f"--{key}.{name}".rstrip(".").replace("_", "-"), str(one)]
    ran = []
    for page, module, options in commands():
        if page == "my_folder.md":
            if "--decisions" in options:
                file = tmp_path / "runs" / "mine" / "samples.csv"
                lines = file.read_text().splitlines()
                lines = [lines[0] + ",override", lines[1] + ",keep", *(line + "," for line in lines[2:])]
                file.write_text("\n".join(lines) + "\n")
            arguments = shlex.split(options) + (short if module == "run" else [])
            if module == "doctor":
                arguments.append("--no-smoke")
            with threads_kept():
                done = command(module, *arguments)
            assert done.code == 0, (module, options, done.text)
            ran.append(module)
    assert ran == ["doctor", "run", "run", "run", "export", "export"]
    assert (tmp_path / "cleaned" / "images").is_dir()
    assert dlp_fast.load("runs/mine").classes == ("cats", "dogs")

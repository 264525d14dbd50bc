"""What the documentation says is so: links, commands, options, defaults, files, names of the API, and its length."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import shlex
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro
import yaml
from PIL import Image
from pydantic import BaseModel
from tiny import ROOT, command, threads_kept
from tiny import options as short_options

import dlp_fast
from dlp_fast.config import RunConfig, build, presets, read_preset

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(p for p in DOCS.rglob("*.md") if p.name != "results.md")]
DECISIONS = [page for page in PAGES if page.parent.name == "decisions"]
BEHAVIOUR = [page for page in PAGES if page not in DECISIONS and page.parent != ROOT]
GENERATED = {"results.md"}  # by `make docs`, into the copy that the site is built from
COMMAND = re.compile(r"^\s+(?:\.venv/bin/)?(?:python -m dlp_fast\.|dlp-fast )([\w-]+)(.*)$", re.MULTILINE)
STUDY = re.compile(r"^\s+python -m ((?:benchmarks|studies)\.[\w.]+)(.*)$", re.MULTILINE)
CONSOLE = {"run", "predict", "scan-new", "poison", "evaluate", "report", "export", "doctor"}
README_WORDS = 850
PAGE_WORDS = 600  # of prose: a table is looked up, and not read
# Words of ours that a reader would have to learn, and the field's words for them.
PRIVATE = {
    "cloud": "group",
    "vouch": "held-out label agreement",
    "second look": "ensemble",
    "strength": "separation score",
    "distrust": "high_loss_fraction",
    "readmit": "reinstate",
    "barred": "suspected",
    "rival": "other defence",
}


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def each_page(pages: list[Path]) -> Any:
    return pytest.mark.parametrize("page", pages, ids=named)


def without_code(text: str) -> str:
    """`text` without fenced and indented code blocks."""
    text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(
        r"(?:^|(?<=\n\n))(?: {4}|\t)(?![-*\d]).*(?:\n(?: {4}.*|(?=\n {4})))*", "", text, flags=re.MULTILINE
    )


def prose(text: str) -> str:
    """What is read from top to bottom: no code blocks, tables, pictures and targets of links."""
    lines = [
        line for line in without_code(text).splitlines() if not line.lstrip().startswith(("|", "![", ":::"))
    ]
    return re.sub(r"\]\([^)]*\)", "]", "\n".join(lines))


def words(text: str) -> int:
    return len(re.findall(r"\S*\w\S*", text))


def code_spans(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", without_code(page.read_text()))


def commands() -> list[tuple[str, str, str]]:
    """(page, module, options) of every command in a code block."""
    return [
        (named(page), found[1], found[2].strip())
        for page in PAGES
        for found in COMMAND.finditer(page.read_text())
    ]


def studies() -> list[tuple[str, str, str]]:
    """(page, module, options) of every command of a benchmark or a study in a code block."""
    return [
        (named(page), found[1], found[2].strip())
        for page in PAGES
        for found in STUDY.finditer(page.read_text())
    ]


def config_of(module: str) -> type[BaseModel]:
    """The options of `python -m dlp_fast.<module>`, from where its main is written."""
    if module == "run":
        return RunConfig
    module = module.replace("-", "_")
    name = f"dlp_fast.{module}"
    if importlib.util.find_spec(name).submodule_search_locations:
        name += ".__main__"
    home = sys.modules[importlib.import_module(name).main.__module__]
    return getattr(home, f"{module.title().replace('_', '')}Config")


def parse(module: str, arguments: list[str]) -> None:
    """Raises, or exits, where the command would not take `arguments`."""
    if module == "run":
        rest = []
        left = iter(arguments)
        for argument in left:
            if argument == "--preset":
                build(read_preset(next(left)), "preset")
            else:
                rest.append(argument)
        arguments = rest
    tyro.cli(config_of(module), args=[a.replace("…", "0") for a in arguments])


def is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def fields(model: type[BaseModel]) -> dict[str, Any]:
    """Every field by its dotted name, those of sections within sections too."""
    found = {}
    for name, field in model.model_fields.items():
        found[name] = field
        if is_section(field.annotation):
            found |= {f"{name}.{key}": inside for key, inside in fields(field.annotation).items()}
    return found


@functools.cache
def options_of_a_command() -> set[str]:
    """`--name` of every option of every command."""
    found = {"--preset", "--config", "--help"}
    for module in sorted(CONSOLE | {"reproduce"}):
        for name, field in fields(config_of(module)).items():
            shorthands = (alias for one in field.metadata for alias in getattr(one, "aliases", None) or ())
            found |= {"--" + name.replace("_", "-"), *shorthands}
    return found


def sections() -> set[str]:
    return {name for name, field in RunConfig.model_fields.items() if is_section(field.annotation)}


def rows(page: Path) -> Iterator[tuple[list[str], list[str]]]:
    """(cells of the header, cells) of every row of every table of a page."""
    header: list[str] | None = None
    for line in page.read_text().splitlines():
        if not line.startswith("|"):
            header = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if header is None:
            header = cells
        elif not set(line) <= set("|-: "):
            yield header, cells


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as the site and GitHub make them."""
    heads = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


class TestLinks:
    @each_page(PAGES)
    def test_lead_somewhere(self, page):
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
            if target.startswith(("http", "mailto")):
                continue
            file = page.parent / target if target else page
            assert file.exists(), f"{named(page)} -> {target}"
            assert not anchor or anchor in anchors(file), f"{named(page)} -> {target}#{anchor}"

    @each_page([page for page in PAGES if page.parent != ROOT])
    def test_stay_in_the_site(self, page):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if not target.startswith(("http", "mailto")):
                assert (page.parent / target).resolve().is_relative_to(DOCS), f"{named(page)} -> {target}"

    def test_every_picture_is_shown(self):
        text = "\n".join(page.read_text() for page in PAGES)
        for picture in (DOCS / "images").iterdir():
            assert f"images/{picture.name})" in text, f"no page links {picture.name}"


class TestNavigation:
    def nav(self) -> set[str]:
        class Loader(yaml.SafeLoader):
            pass

        Loader.add_constructor("!ENV", lambda loader, node: loader.construct_sequence(node)[-1])
        settings = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)  # noqa: S506  a SafeLoader with one tag more

        def pages(entry: Any) -> Iterator[str]:
            if isinstance(entry, str):
                yield entry
            else:
                for inner in entry.values() if isinstance(entry, dict) else entry:
                    yield from pages(inner)

        assert settings["docs_dir"] == "docs"
        return set(pages(settings["nav"]))

    def test_has_every_page_and_no_other(self):
        there = {page.relative_to(DOCS).as_posix() for page in PAGES if page.parent != ROOT}
        assert self.nav() == there | GENERATED

    def test_generated_pages_are_not_kept(self):
        for name in GENERATED:
            assert not (DOCS / name).exists()

    def test_every_decision_is_in_the_index(self):
        index = (DOCS / "decisions" / "index.md").read_text()
        for page in DECISIONS:
            if page.name != "index.md":
                assert re.fullmatch(r"\d{3}-[a-z0-9-]+\.md", page.name)
                assert f"]({page.name})" in index


class TestCommands:
    def test_there_are_some(self):
        assert {module for _, module, _ in commands()} >= CONSOLE - {"report"} | {"reproduce"}

    @pytest.mark.parametrize(("page", "module", "options"), commands())
    def test_options_exist(self, page, module, options):
        parse(module, shlex.split(options))

    @pytest.mark.parametrize(("page", "module", "options"), studies())
    def test_options_of_studies_exist(self, page, module, options):
        importlib.import_module(module).parser().parse_args(shlex.split(options))

    def test_the_console_command(self):
        """README names `dlp-fast run|poison|...`: it is installed, and each is a module as well."""
        told = re.search(r"`dlp-fast ([a-z|-]+)`", (ROOT / "README.md").read_text())
        assert set(told[1].split("|")) == CONSOLE
        scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
        module, _, function = scripts["dlp-fast"].partition(":")
        assert callable(getattr(importlib.import_module(module), function))
        for name in CONSOLE:
            assert importlib.util.find_spec(f"dlp_fast.{name.replace('-', '_')}"), name

    def test_of_my_own_folder_work(self, tmp_path, monkeypatch):
        """In order, on a folder of that name; short where the page leaves it to the run."""
        monkeypatch.chdir(tmp_path)
        rng = np.random.default_rng(0)
        for k, name in enumerate(("cats", "dogs")):
            (tmp_path / "my_images" / name).mkdir(parents=True)
            for i in range(30):
                pixels = rng.integers(0, 90, (16, 16, 3), dtype=np.uint8) + np.uint8(100 * k)
                Image.fromarray(pixels).save(tmp_path / "my_images" / name / f"{i:04d}.png")
        short = short_options()
        ran = []
        for page, module, options in commands():
            if page == "docs/my_folder.md":
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
        documented = (DOCS / "run_folder.md").read_text()
        for file in (tmp_path / "runs" / "mine").iterdir():
            if file.name != ".lock":
                assert f"`{file.name}" in documented, f"docs/run_folder.md says nothing of {file.name}"


class TestOptions:
    @each_page(PAGES)
    def test_named_ones_exist(self, page):
        for span in code_spans(page):
            for name in re.findall(r"(?<!\S)--[a-z][\w.-]*", span):
                if not span.startswith(
                    (
                        "pip ",
                        "python benchmarks",
                        "python -m benchmarks",
                        "make ",
                        "sha256sum ",
                        "torchrun ",
                        "--nproc",
                    )
                ):
                    assert name in options_of_a_command(), f"{named(page)}: {name}"
            named_option = re.match(r"([a-z_]+)(?:\.[a-z_]+)+\b(?!\()", span)
            if named_option and named_option[1] in sections():
                assert named_option[0] in fields(RunConfig), f"{named(page)}: {named_option[0]}"

    @each_page(PAGES)
    def test_no_retired_section(self, page):
        """`filter`, `unlearn` and `finetune` are detection, unlearning and finetuning; one name for one thing."""
        for span in code_spans(page):
            assert not re.match(r"(--)?(filter|unlearn|finetune)\.[a-z]", span), f"{named(page)}: {span}"

    @each_page(BEHAVIOUR)  # a decision tells what was the default when it was made
    def test_defaults_are_those_of_the_code(self, page):
        """In tables with a column "default", and wherever a page says `section.option` = value."""
        told = [
            (cells[0].strip("`"), cells[1])
            for header, cells in rows(page)
            if header[:2] == ["option", "default"]
        ]
        told += re.findall(r"`([a-z_]+\.[a-z_]+)` = ([\d.e-]*\d)", page.read_text())
        for name, value in told:
            default = str(fields(RunConfig)[name].default)
            assert default in (value, f"{value}.0"), f"{named(page)}: {name}"

    def test_tables_of_defaults_are_seen(self):
        assert sum(header[:2] == ["option", "default"] for page in PAGES for header, _ in rows(page)) > 10

    def test_orders_are_all_told(self):
        text = (DOCS / "how_it_works.md").read_text()
        for order in RunConfig.model_fields["order"].annotation.__args__:
            assert f"`{order}`" in text or f"`--order {order}`" in text

    def test_presets_are_all_told(self):
        text = (DOCS / "my_folder.md").read_text()
        for name in presets():
            assert f"| `{name}` |" in text


class TestNames:
    @each_page(PAGES)
    def test_files_exist(self, page):
        """Paths of the repository that a page names: *, {a,b} and a trailing / are understood."""
        for span in code_spans(page):
            for path in re.findall(r"(?<![\w/.])(?:dlp_fast|csrc|tests|benchmarks|studies)/[\w./*-]*", span):
                assert list(ROOT.glob(path.rstrip("/"))), f"{named(page)}: {path}"
        for path in re.findall(r"\bpython (\w[\w/]*\.py)\b", page.read_text()):
            assert (ROOT / path).is_file(), f"{named(page)}: python {path}"
        for module in re.findall(r"\bpython -m ((?:benchmarks|studies)[\w.]*)", page.read_text()):
            assert _is_module(module.rstrip(".")), f"{named(page)}: python -m {module}"

    def test_the_api_exists(self):
        told = re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
        assert len(told) > 5
        for name in told:
            if importlib.util.find_spec(name.rsplit(".", 1)[0]) and not _is_module(name):
                module, _, attribute = name.rpartition(".")
                assert isinstance(
                    getattr(importlib.import_module(module), attribute), (type, types.FunctionType)
                ), name
            else:
                assert _is_module(name), name

    def test_exit_codes_are_those_of_the_errors(self):
        from dlp_fast import errors

        told = {cells[0] for header, cells in rows(DOCS / "run_folder.md") if header[0] == "code"}
        codes = {str(of.exit_code) for of in errors.DlpError.__subclasses__() if of.exit_code != 1}
        assert codes | {"0", "129, 130, 143", "141"} == told


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


class TestLanguage:
    def test_readme_fits_on_two_screens(self):
        assert len((ROOT / "README.md").read_text().split()) <= README_WORDS

    def test_readme_has_one_table_of_claims(self):
        """Of at most six rows, each with the file that it rests on."""
        found = list(rows(ROOT / "README.md"))
        assert {tuple(header) for header, _ in found} == {("claim", "measured", "results file")}
        assert 3 <= len(found) <= 6
        for _, cells in found:
            assert cells[2] == "the same" or "](benchmarks/results/" in cells[2] or "](studies/" in cells[2]

    @each_page(BEHAVIOUR)
    def test_a_page_is_short(self, page):
        assert words(prose(page.read_text())) <= PAGE_WORDS

    @each_page(PAGES)
    def test_no_private_words(self, page):
        text = re.sub(r"`[^`\n]*`", "", prose(page.read_text())).lower()
        for ours, theirs in PRIVATE.items():
            assert ours not in text, f"{named(page)}: say {theirs} for {ours}"

    @each_page(PAGES)
    def test_nothing_is_guaranteed(self, page):
        assert "guaranteed" not in page.read_text().lower()

    def test_abbreviations_are_expanded_in_the_readme(self):
        text = (ROOT / "README.md").read_text()
        for short, long in {
            "CA": "Clean accuracy",
            "ASR": "Attack success rate",
            "WRN-16-1": "wide residual",
        }.items():
            assert re.search(rf"\b{short}\b", text)
            assert long in text

    def test_prose_is_what_is_read(self):
        """The limit counts sentences, and neither code, tables nor targets of links."""
        text = "# A\n\nOne [two](x.md).\n\n    python -m x\n\n| x | x |\n|---|---|\n\n```python\nx\n```\n\n- three\n"
        assert words(prose(text)) == 4

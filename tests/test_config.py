"""Options: where they come from, which are refused, and that each one is used."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from pydantic import BaseModel
from tiny import command

import dlp_fast
from dlp_fast.commands.options import read_options
from dlp_fast.config import (
    NOT_COMPARED,
    DataConfig,
    RunConfig,
    build,
    differences,
    merge,
    presets,
    read_preset,
    read_yaml,
    resolve,
)
from dlp_fast.errors import ConfigError

PACKAGE = Path(dlp_fast.__file__).parent

# An option is a promise: one more to test, to document and to keep. Change the number with the model.
OPTIONS = {
    "": 23,
    "dataset": 12,
    "supervised": 11,
    "detection": 58,
    "detection.learning_curves": 14,
    "detection.static_patterns": 24,
    "unlearning": 7,
    "finetuning": 25,
}


def sections(model: type[BaseModel] = RunConfig, name: str = "") -> dict[str, type[BaseModel]]:
    """Every section by its dotted name."""
    found = {name: model}
    for field, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            found |= sections(info.annotation, f"{name}.{field}".lstrip("."))
    return found


def is_section(name: str, field: str) -> bool:
    return f"{name}.{field}".lstrip(".") in sections()


class Reads:
    """Which options a module reads: attributes of what is known to be a section, or keys of a resolved configuration.

    A section is known by its annotation (`config: DetectionConfig`), by where it came from (`config.detection`,
    `config.model_copy(…)`), or by the name `settings`, under which a resolved RunConfig goes about as a dict. An
    attribute of the same name of anything else is no reading.
    """

    def __init__(self, text: str):
        self.found: set[tuple[str, str]] = set()
        self.by_class = {model.__name__: name for name, model in sections().items()}
        self.block(ast.parse(text).body, {})

    def block(self, body: list[ast.stmt], known: dict[str, set[str]]) -> None:
        for statement in body:
            self.visit(statement, known)

    def visit(self, node: ast.AST, known: dict[str, set[str]]) -> None:
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            arguments = node.args
            inside = dict(known)
            for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
                told = ast.unparse(argument.annotation).removesuffix(" | None") if argument.annotation else ""
                if told in self.by_class:
                    inside[argument.arg] = {self.by_class[told]}
                elif argument.arg == "settings":
                    inside["settings"] = {""}
                elif argument.annotation:
                    inside.pop(argument.arg, None)
            known = inside
        elif isinstance(node, ast.ClassDef):
            known = dict(known) | self.kept_by(node)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts))
                for name, value in pairs:
                    if isinstance(name, ast.Name):
                        known[name.id] = self.of(value, known) or ({""} if name.id == "settings" else set())
        for child in ast.iter_child_nodes(node):
            self.visit(child, known)
        self.of(node, known)

    def kept_by(self, node: ast.ClassDef) -> dict[str, set[str]]:
        """`self.NAME` for each section that the class is made with and keeps under the argument's name."""
        made = [f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"]
        arguments = [argument for function in made for argument in function.args.args if argument.annotation]
        told = {argument.arg: ast.unparse(argument.annotation) for argument in arguments}
        return {f"self.{name}": {self.by_class[of]} for name, of in told.items() if of in self.by_class}

    def of(self, node: ast.AST, known: dict[str, set[str]]) -> set[str]:
        """The sections that an expression may be; notes what is read on the way."""
        if isinstance(node, ast.Name):
            return known.get(node.id, set())
        if isinstance(node, ast.Attribute) and ast.unparse(node) in known:
            return known[ast.unparse(node)]
        if isinstance(node, ast.BoolOp):
            return set().union(*(self.of(value, known) for value in node.values))
        if isinstance(node, ast.IfExp):
            return self.of(node.body, known) | self.of(node.orelse, known)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":  # getattr(config, stage).batch
            return set(sections()) - {""} if self.of(node.args[0], known) == {""} else set()
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "model_copy"
        ):
            return self.of(node.func.value, known)
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "model_dump"
        ):
            for named in (word.value for word in node.keywords if word.arg == "include"):
                words = [key.value for key in named.elts if isinstance(key, ast.Constant)]
                self.found |= {(name, word) for name in self.of(node.func.value, known) for word in words}
            return self.of(node.func.value, known)
        if isinstance(node, ast.Call):
            givers = ("read_options", "build", "fit", "resolve", "at_real_places")
            made = dict.fromkeys(givers, "") | self.by_class
            called = ast.unparse(node.func)
            return {made[called]} if called in made else set()
        if isinstance(node, ast.Attribute):
            base, word = node.value, node.attr
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            base, word = node.value, node.slice.value
        else:
            return set()
        parts = set()
        for name in self.of(base, known):
            if word in sections()[name].model_fields:
                self.found.add((name, word))
                parts |= {f"{name}.{word}".lstrip(".")} if is_section(name, word) else set()
        return parts


class TestPrecedence:
    def test_defaults(self):
        assert read_options([]) == RunConfig()

    def test_preset_over_defaults(self):
        assert RunConfig().detection.method == "learning_curves"
        assert read_options(["--preset", "paper"]).detection.method == "entropy"

    def test_file_over_preset(self, tmp_path):
        file = tmp_path / "mine.yaml"
        file.write_text("detection: {method: learning_curves}\nseed: 3\n")
        config = read_options(["--preset", "paper", "--config", str(file)])
        assert (config.detection.method, config.seed) == ("learning_curves", 3)
        assert (
            config.finetuning.labeled == "hardest"
        )  # the preset's, in a section that the file does not name

    def test_command_line_over_file(self, tmp_path):
        file = tmp_path / "mine.yaml"
        file.write_text("seed: 3\nsupervised: {epochs: 4, batch: 64}\n")
        config = read_options(["--seed", "5", "--config", str(file), "--supervised.epochs", "6"])
        assert (config.seed, config.supervised.epochs, config.supervised.batch) == (5, 6, 64)

    def test_the_resolved_configuration_gives_the_same_run(self, tmp_path):
        import yaml

        first = resolve(read_options(["--preset", "paper", "--seed", "9"]))
        file = tmp_path / "resolved.yaml"
        file.write_text(yaml.safe_dump(first))
        assert resolve(read_options(["--config", str(file)])) == first

    def test_merge_leaves_its_arguments(self):
        base, over = {"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}
        assert merge(base, over) == {"a": {"b": 3, "c": 2}}
        assert base == {"a": {"b": 1, "c": 2}}

    def test_presets_are_valid(self):
        assert "paper" in presets()
        for name in presets():
            build(read_preset(name), name)

    def test_auto_attack_is_decided(self):
        assert resolve(RunConfig())["attack"] == "badnets"
        assert resolve(RunConfig(data="cifar10"))["attack"] == "none"


class TestRefused:
    @pytest.mark.parametrize(
        ("arguments", "hint"),
        [
            (["--supervised.epoch", "3"], "--supervised.epochs"),
            (["--sede", "3"], "--seed"),
            (["--finetuning.lambda", "1"], "--finetuning.lambda-u"),
        ],
    )
    def test_command_line_typo(self, arguments, hint):
        done = command("run", *arguments)
        assert done.code == 2
        assert "perhaps you meant" in done.text.lower()
        assert hint in done.text
        assert "Traceback" not in done.text

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "supervised: {epoch: 3}",
                "supervised.epoch: no such option; perhaps you meant supervised.epochs",
            ),
            ("sede: 3", "sede: no such option; perhaps you meant seed"),
            ("seed: -1", "seed: expected at least 0 and less than [0-9]+, got -1"),
            ("supervised: {epochs: 0}", "supervised.epochs: expected at least 1, got 0"),
            ("supervised: 3", "supervised: "),
            ("attack: badnet", "attack: .*'badnets'"),
            ("- a list", "expected `key: value` lines, got a list"),
            ("a: [", "cannot be read"),
        ],
    )
    def test_yaml(self, tmp_path, text, message):
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_options(["--config", str(file)])
        done = command("run", "--config", file)
        assert done.code == 2
        assert "Traceback" not in done.text

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--dataset.image-size", "3"), "--dataset.image-size: expected 8 to 256, got 3."),
            (("--supervised.epochs", "0"), "--supervised.epochs: expected at least 1, got 0."),
            (("--poison-rate", "2"), "--poison-rate: expected more than 0 and at most 1, got 2.0."),
            (
                ("--data", "https://host/x"),
                "https://host/x is an address, and dlp_fast fetches only .tar and .parquet",
            ),
        ],
    )
    def test_command_line_in_our_words(self, words, message):
        done = command("run", *words)
        assert done.code == 2
        assert message in " ".join(done.text.split())
        assert "type=" not in done.text and "Input should" not in done.text

    def test_from_python(self):
        with pytest.raises(ConfigError, match=r"image_size: expected 8 to 256, got 3"):
            DataConfig(image_size=3)
        with pytest.raises(ConfigError, match="https://host/x is an address"):
            dlp_fast.defend("https://host/x")

    def test_missing_file(self, tmp_path):
        with pytest.raises(ConfigError, match="does not exist"):
            read_options(["--config", str(tmp_path / "none.yaml")])

    def test_empty_file_is_no_change(self, tmp_path):
        (tmp_path / "empty.yaml").write_text("")
        assert read_yaml(tmp_path / "empty.yaml") == {}

    def test_unknown_preset(self):
        done = command("run", "--preset", "papr")
        assert done.code == 2
        assert "perhaps you meant paper" in done.text

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("--supervised.epochs", "0"),
            ("--supervised.momentum", "1"),
            ("--detection.rate", "0.7"),
            ("--unlearning.max-norm", "0"),
            ("--finetuning.tau", "1.5"),
            ("--dataset.image-size", "4"),
            ("--poison-rate", "0"),
            ("--poison-rate", "1.1"),
            ("--seed", "-1"),
            ("--seed", str(2**63)),
            ("--threads", "0"),
            ("--checkpoint-seconds", "-1"),
            ("--attack", "badnet"),
            ("--supervised.epochs", "many"),
            ("--order", "au-sl"),
        ],
    )
    def test_out_of_range(self, tmp_path, option, value):
        done = command("run", "--out", tmp_path / "run", option, value)
        assert done.code == 2
        assert "Traceback" not in done.text
        assert option.rpartition(".")[2].lstrip("-").replace("-", "") in done.text.replace("-", "").replace(
            "_", ""
        )
        assert not (tmp_path / "run").exists()


class TestFields:
    def test_the_number_of_options_is_frozen(self):
        counted = {
            name: sum(not is_section(name, field) for field in model.model_fields)
            for name, model in sections().items()
        }
        assert counted == OPTIONS

    def test_every_field_says_what_it_is(self):
        for name, model in sections().items():
            for field, info in model.model_fields.items():
                assert info.description, f"{name}.{field} has no docstring"

    def test_every_field_is_read(self):
        """By the package's own code, outside of the configuration."""
        read: set[tuple[str, str]] = set()
        for file in PACKAGE.rglob("*.py"):
            if PACKAGE / "config" not in file.parents:
                read |= Reads(file.read_text()).found
        fields = {(name, field) for name, model in sections().items() for field in model.model_fields}
        assert not fields - read, "options that nobody reads"

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("def f(config: RunConfig):\n return config.seed", {("", "seed")}),
            ("def f(data):\n return data.seed", set()),
            ("def f(config: RunConfig, data: TrainingData):\n return data.seed", set()),
            (
                "def f(config: RunConfig):\n two = config.unlearning\n return two.batch",
                {("", "unlearning"), ("unlearning", "batch")},
            ),
            (
                "def f(options: DataConfig):\n return options.model_dump(include={'workers'})",
                {("dataset", "workers")},
            ),
            ("def f(settings):\n return settings['target']", {("", "target")}),
            ("def f(options):\n return options['target']", set()),
        ],
    )
    def test_what_counts_as_read(self, text, found):
        """Another object's attribute of the same name does not."""
        assert Reads(text).found == found

    def test_help_names_every_option(self):
        done = command("run", "--help")
        assert done.code == 0
        for name, model in sections().items():
            for field in model.model_fields:
                if not is_section(name, field):
                    option = f"--{name}.{field}" if name else f"--{field}"
                    assert option.replace("_", "-") in done.text
        assert "--preset" in done.text
        assert "γ" in done.text

    def test_nothing_changes_after_reading(self):
        with pytest.raises(ValueError, match="frozen"):
            RunConfig().seed = 3


def test_differences_name_both_values():
    one, two = resolve(RunConfig(seed=1)), resolve(RunConfig(seed=2, detection={"rate": 0.02}))
    assert differences(one, two) == ["detection.rate: 0.01 there, 0.02 now", "seed: 1 there, 2 now"]
    two = resolve(RunConfig(seed=1, out="elsewhere", checkpoint_seconds=1))
    assert {"out", "checkpoint_seconds", "decisions", "track", "dry_run"} == NOT_COMPARED
    assert differences(one, two) == []


class TestPlacesGivenTwice:
    @pytest.mark.parametrize(
        "words", [["--data", "a", "--data", "b"], ["--data=a", "--data", "b"], ["--out", "x", "--out=x"]]
    )
    def test_the_last_does_not_win_in_silence(self, words):
        with pytest.raises(ConfigError, match="is given 2 times, and the last alone would count"):
            read_options(words)

    def test_several_names_of_a_pattern(self):
        with pytest.raises(ConfigError, match="--data takes one place, and b follows it"):
            read_options(["--data", "a", "b", "c", "--out", "x"])
        assert read_options(["--data", "a", "--seed", "1", "--seed", "2"]).seed == 2

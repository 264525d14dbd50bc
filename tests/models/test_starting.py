"""Weights that networks start from: files, torchvision's and timm's own, and runs from beginning to end."""

import dataclasses
import hashlib
import json
import sys
import types
import urllib.error

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from tiny import TINY, command, options, training_data

import dlp_fast
from dlp_fast.commands.export_model import model_card
from dlp_fast.config import RunConfig
from dlp_fast.errors import ConfigError, ResourceError
from dlp_fast.models.registry import build_model, check_name, how_it_starts, new_model
from dlp_fast.models.starting import check_options, from_file, starting_weights

KEPT = "starting_weights.safetensors"


def saved(path, name="resnet18", prefix="", **over):
    """A file of random weights of torchvision's own network of 1,000 classes, and its tensors."""
    torch.manual_seed(3)
    state = torchvision.models.get_model(name, weights=None).state_dict() | over
    save_file({prefix + key: value.contiguous() for key, value in state.items()}, path)
    return path, state


def data_of(side, start):
    of = training_data()
    images = types.SimpleNamespace(height=side, width=side)
    return dataclasses.replace(of, images=images, start=start)


class TestFill:
    @pytest.mark.parametrize(("name", "head"), [("resnet18", "fc"), ("squeezenet1_1", "classifier.1")])
    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_all_but_the_classifier(self, tmp_path, name, head, prefix):
        file, state = saved(tmp_path / "w.safetensors", name, prefix)
        data = data_of(112, from_file(file))
        one, two = (new_model(f"torchvision:{name}", data, seed).state_dict() for seed in (0, 1))
        for key, value in one.items():
            if key.startswith(f"{head}."):
                assert value.shape[0] == data.classes
            else:
                assert torch.equal(value, state[key]) and torch.equal(two[key], value)
        assert not torch.equal(one[f"{head}.weight"], two[f"{head}.weight"])

    def test_the_classifier_is_new_even_where_it_fits(self, tmp_path):
        torch.manual_seed(3)
        state = torchvision.models.resnet18(num_classes=3).state_dict()
        save_file(state, tmp_path / "w.safetensors")
        net = build_model("torchvision:resnet18", 3, 112, 0, from_file(tmp_path / "w.safetensors"))
        assert not torch.equal(net.fc.weight, state["fc.weight"])

    def test_a_line_says_what_was_loaded(self, tmp_path):
        file, state = saved(tmp_path / "w.safetensors", extra=torch.zeros(2))
        filled, told = how_it_starts("torchvision:resnet18", data_of(112, from_file(file)))
        assert len(filled.loaded) == 100 and filled.left_out == ("extra",)
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        assert told == (
            f"starting weights: w.safetensors (sha256 {sha256[:12]}…): 100 of 102 tensors loaded; new classifier: "
            "fc.weight, fc.bias; left out: extra"
        )
        del state["layer4.1.bn2.bias"], state["extra"]
        save_file(state, file)
        assert (
            "; missing: layer4.1.bn2.bias"
            in how_it_starts("torchvision:resnet18", data_of(112, from_file(file)))[1]
        )

    @pytest.mark.parametrize(("side", "own"), [(64, False), (65, True), (96, True), (97, True)])
    def test_stem(self, tmp_path, side, own):
        """Above 64 px it is the one that was learnt; up to there it is ours, and the line says so."""
        file, state = saved(tmp_path / "w.safetensors")
        data = data_of(side, from_file(file))
        net = new_model("torchvision:resnet18", data, 0)
        assert net.conv1.stride == ((2, 2) if own else (1, 1))
        assert (net.conv1.weight.shape == state["conv1.weight"].shape) == own
        told = how_it_starts("torchvision:resnet18", data)[1]
        assert ("the stem is replaced, and what replaces it is not pretrained" in told) != own
        assert ("of another shape, not loaded: conv1.weight" in told) != own
        assert new_model("torchvision:resnet18", data_of(side, None), 0).conv1.stride == (
            (2, 2) if side > 96 else (1, 1)
        )

    def test_nothing_fits(self, tmp_path):
        file, _ = saved(tmp_path / "w.safetensors", "squeezenet1_1")
        with pytest.raises(
            ConfigError, match=r"none of the 52 tensors of w.safetensors fits .*resnet18 .*the network bn1"
        ):
            new_model("torchvision:resnet18", data_of(112, from_file(file)), 0)

    def test_numbers_that_are_not_finite(self, tmp_path):
        file, _ = saved(tmp_path / "w.safetensors", **{"bn1.weight": torch.full((64,), float("nan"))})
        with pytest.raises(ConfigError, match=r"bn1.weight holds numbers that are not finite"):
            new_model("torchvision:resnet18", data_of(112, from_file(file)), 0)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"weights": "none.safetensors"},
                r"--weights none.safetensors is not there; expected a safetensors file",
            ),
            ({"weights": "a", "pretrained": True}, r"starts from one of them; leave the other out"),
            (
                {"pretrained": True},
                r"no pretrained weights of wrn-16-1; expected --model torchvision:NAME or timm",
            ),
        ],
    )
    def test_refused(self, options, message):
        with pytest.raises(ConfigError, match=message):
            check_options(RunConfig(**options), None)

    def test_none_by_default(self):
        assert starting_weights(RunConfig(), None) is None

    def test_a_state_dict_of_torch_is_not_unpickled(self, tmp_path):
        torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
        with pytest.raises(
            ConfigError, match=r"w.pth cannot be read as a safetensors file .*converted by: python -c"
        ):
            starting_weights(RunConfig(weights=tmp_path / "w.pth"), None)


class TestTorchvision:
    CONFIG = RunConfig(model="torchvision:resnet18", pretrained=True)

    def test_its_own_loading(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
        state = torchvision.models.resnet18().state_dict()
        torch.save(state, tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth")
        start = starting_weights(self.CONFIG, None)
        assert start.source == "torchvision ResNet18_Weights.IMAGENET1K_V1"
        assert start.tensors.keys() == state.keys()
        assert all(torch.equal(start.tensors[key], value) for key, value in state.items())
        assert starting_weights(self.CONFIG, None).sha256 == start.sha256
        state["fc.bias"][0] += 1
        torch.save(state, tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth")
        assert starting_weights(self.CONFIG, None).sha256 != start.sha256

    def test_only_tensors_are_unpickled(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
        torch.save({"a": types.SimpleNamespace()}, tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth")
        with pytest.raises(ResourceError, match=r"torchvision cannot load .* of resnet18 \(Weights only"):
            starting_weights(self.CONFIG, None)

    def test_without_a_network_connection(self, tmp_path, monkeypatch):
        def refused(*_, **__):
            raise urllib.error.URLError("no route to host")

        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr("torch.hub.urlopen", refused)
        with pytest.raises(
            ResourceError, match=r"no route to host.*Without a network connection: give a file"
        ) as told:
            starting_weights(self.CONFIG, None)
        assert "\n" not in str(told.value)


@pytest.fixture
def timm(monkeypatch):
    """A stand-in for the package, with one network; what it was asked for is in `asked`."""

    class Net(torch.nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 4, 3, 2)
            self.head = torch.nn.Linear(4, classes)

        def forward(self, x):
            return self.head(self.stem(x).mean((2, 3)))

    def create_model(name, pretrained=False, num_classes=1000):
        module.asked.append((name, pretrained, num_classes))
        if name.endswith(".none"):
            raise RuntimeError("Invalid pretrained tag (none) for tiny_net.")
        if pretrained and module.offline:
            raise OSError("no route to host\nand more")
        torch.manual_seed(7 if pretrained else int(torch.randint(99, ())))
        return Net(num_classes)

    module = types.ModuleType("timm")
    module.asked, module.offline = [], False
    module.create_model, module.list_models = create_model, lambda: ["tiny_net", "other"]
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


class TestTimm:
    def test_missing(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(
            ResourceError, match=r"--model timm:resnet50 needs the package timm: .*pip install 'timm"
        ):
            check_name("timm:resnet50")

    def test_names(self, timm):
        check_name("timm:tiny_net")
        check_name("timm:tiny_net.in1k")
        with pytest.raises(
            ConfigError, match=r"model timm:tiny_nt is unknown; perhaps you meant timm:tiny_net"
        ):
            check_name("timm:tiny_nt")
        with pytest.raises(ConfigError, match=r"timm:tiny_net.none cannot be built \(Invalid pretrained tag"):
            build_model("timm:tiny_net.none", 3, 32, 0)

    def test_builds(self, timm):
        one, two = (build_model("timm:tiny_net", 5, 32, seed) for seed in (1, 1))
        assert torch.equal(one.head.weight, two.head.weight) and one.head.out_features == 5
        assert timm.asked == [("tiny_net", False, 5)] * 2

    def test_pretrained(self, timm):
        start = starting_weights(RunConfig(model="timm:tiny_net", pretrained=True), None)
        assert start.source == "timm tiny_net"
        net = new_model("timm:tiny_net", data_of(32, start), 0)
        assert torch.equal(net.stem.weight, start.tensors["stem.weight"])
        assert net.head.out_features == training_data().classes
        timm.offline = True
        with pytest.raises(ResourceError, match=r"timm cannot load .* of tiny_net \(no route to host\)"):
            starting_weights(RunConfig(model="timm:tiny_net", pretrained=True), None)


class TestRun:
    @pytest.fixture
    def file(self, tmp_path):
        net = build_model("wrn-10-1", 7, 8, seed=11)
        save_file({k: v.contiguous() for k, v in net.state_dict().items()}, tmp_path / "w.safetensors")
        return tmp_path / "w.safetensors"

    def test_from_beginning_to_end(self, file, tmp_path, monkeypatch, capsys):
        stems = []

        def remembered(name, data, seed):
            net = new_model(name, data, seed)
            stems.append(net.stem[0].weight.detach().clone())
            return net

        for place in ("pipeline", "stages.rounds", "stages.ensemble"):
            monkeypatch.setattr(f"dlp_fast.{place}.new_model", remembered)
        asked = {"out": tmp_path / "run", "weights": file, "classes": list("abc"), **TINY}
        of = training_data()
        images = of.images.get(torch.arange(len(of)))
        dlp_fast.defend(images, of.labels, **asked)
        assert "starting weights: w.safetensors (sha256 " in " ".join(capsys.readouterr().err.split())
        stem = from_file(file).tensors["stem.0.weight"]
        assert len(stems) >= 2 and all(torch.equal(one, stem) for one in stems)
        results = json.loads((tmp_path / "run" / "results.json").read_text())
        started = results["model"]["starting_weights"]
        assert started["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert started["head"] == ["classifier.weight", "classifier.bias"] and not started["missing"]
        card = model_card(tmp_path / "run", dlp_fast.load(tmp_path / "run"), "")
        assert f"w.safetensors (sha256 {started['sha256']})" in card
        (tmp_path / "run" / "results.json").unlink()
        file.unlink()  # the same command goes on, and load() works, without the file
        dlp_fast.defend(images, of.labels, quiet=True, **asked)
        assert (
            json.loads((tmp_path / "run" / "results.json").read_text())["model"]["starting_weights"]
            == started
        )
        assert dlp_fast.load(tmp_path / "run").classes

    def test_of_other_weights(self, file, tmp_path):
        config = RunConfig(model="wrn-10-1", weights=file)
        start = starting_weights(config, tmp_path)
        assert starting_weights(config, tmp_path).sha256 == start.sha256
        save_file({"a": torch.zeros(1)}, file)
        with pytest.raises(ConfigError, match=r"is not the file that the run in .* was begun with"):
            starting_weights(config, tmp_path)
        (tmp_path / KEPT).write_bytes(b"x")
        with pytest.raises(dlp_fast.errors.DataError, match="is damaged"):
            starting_weights(config, tmp_path)

    def test_dry_run(self, file, tmp_path):
        done = command("run", "--dry-run", *options(weights=file))
        assert done.code == 0 and "starting weights: w.safetensors" in " ".join(done.text.split())
        done = command("run", "--dry-run", *options(weights=tmp_path / "none"))
        assert done.code == 2 and "is not there" in done.text

    def test_stem_of_a_loaded_model(self, tmp_path):
        """Between 65 and 96 px the stem depends on whether the run began with weights."""
        from dlp_fast.models.classifier import Classifier, load

        net = build_model("torchvision:squeezenet1_1", 3, 80, 0, own_stem=True)
        Classifier(
            net,
            "torchvision:squeezenet1_1",
            ("a", "b", "c"),
            (80, 80),
            torch.zeros(3),
            torch.ones(3),
            own_stem=True,
        ).save(tmp_path)
        assert load(tmp_path).own_stem
        net = build_model("torchvision:resnet18", 3, 80, 0, own_stem=True)
        Classifier(
            net,
            "torchvision:resnet18",
            ("a", "b", "c"),
            (80, 80),
            torch.zeros(3),
            torch.ones(3),
            own_stem=True,
        ).save(tmp_path)
        assert load(tmp_path).net.conv1.stride == (2, 2)

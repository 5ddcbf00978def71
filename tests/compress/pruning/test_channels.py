"""Image networks of any making, and the removal of their channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.graphs.export import check_probes, export_onnx
from compress.networks.image_models import (
    ImageArchitecture,
    ImageNetwork,
    Pixels,
    channels_of,
    pretrained_network,
)
from compress.networks.models import load_network
from compress.pruning.channels import kept_counts, prune_to, remove_channels
from compress.recipes.parts import ChannelsPart
from contract.errors import FamilyError, RecipeError

OWN = '''
from torch import nn

class Net(nn.Module):
    """Skips, a depthwise and a grouped convolution, group normalisation, a gate of squeezed channels."""

    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.GroupNorm(4, 32))
        self.grouped = nn.Conv2d(32, 32, 3, padding=1, groups=2)
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 8, 1), nn.ReLU())
        self.excite = nn.Sequential(nn.Conv2d(8, 32, 1), nn.Sigmoid())
        self.head = nn.Sequential(nn.Conv2d(32, 48, 1, stride=2), nn.BatchNorm2d(48), nn.SiLU())
        self.fc = nn.Linear(48, classes)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.grouped(self.depthwise(x))
        x = x * self.excite(self.squeeze(x))
        return self.fc(self.head(x).mean((2, 3)))

def build(classes):
    return Net(classes)

def wrong(classes):
    return Net(classes + 1)

def nothing(classes):
    return None

def picky(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(5, classes))
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own file with a network."""
    path = tmp_path_factory.mktemp("own") / "mine.py"
    path.write_text(OWN)
    return path


def network_of(source: str, *, channels: int = 3, size: int = 16, classes: int = 5) -> ImageNetwork:
    """Return a network of a source with its statistics moved off their initial values."""
    shape = ImageArchitecture(source, "", classes, channels, size, size)
    network, _ = pretrained_network(shape, seed=0)
    network.train()
    with torch.no_grad():
        for seed in range(5):
            network(network.images(16, seed=seed))
    network.eval()
    return network


@pytest.fixture
def own(file: Path) -> ImageNetwork:
    """The user's network."""
    return network_of(f"{file}:build")


def part_of(**settings: object) -> ChannelsPart:
    """Return a part with some settings."""
    return ChannelsPart.model_validate({"kind": "channels", "name": "a", "parent": "teacher", **settings})


@pytest.mark.parametrize("importance", ["taylor", "magnitude"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_network_of_ones_own_is_pruned_saved_and_exported(
    own: ImageNetwork, tmp_path: Path, importance: str, whole: bool
) -> None:
    """With skips, groups and gates: the goal is reached, and file and graph give the same logits."""
    part = part_of(speed_up=3, importance=importance, whole=whole, round_to=4)
    flops = own.flops(1)
    images = Pixels(own.images(40).numpy(), np.ones(40, dtype=np.int64))
    smaller = prune_to(
        own, 1 / 3, lambda network: network.flops(1) / flops, part, images, torch.arange(40) % 5
    )
    assert smaller.flops(1) <= flops / 3
    assert smaller.flops(1) > flops / 8
    assert own.flops(1) == flops
    smaller.save(tmp_path)
    again = load_network(tmp_path)
    assert isinstance(again, ImageNetwork)
    assert torch.equal(again(own.images(3)), smaller(own.images(3)))
    assert again.flops(1) == smaller.flops(1)
    export_onnx(again, tmp_path / "model.onnx")
    assert check_probes(again, tmp_path / "model.onnx") < 1e-4


def test_a_pruned_network_is_pruned_again(tmp_path: Path) -> None:
    """What was narrow becomes narrower, and the record of widths covers both times."""
    first = remove_channels(
        network_of("small-cnn", channels=1, size=8), 0.3, part_of(keep=0.5, importance="magnitude")
    )
    first.save(tmp_path)
    read = load_network(tmp_path)
    assert isinstance(read, ImageNetwork)
    second = remove_channels(read, 0.5, part_of(keep=0.5, importance="magnitude"))
    assert channels_of(second.module) < channels_of(first.module)
    second.save(tmp_path)
    assert torch.equal(load_network(tmp_path)(read.images(3)), second(read.images(3)))


def test_silent_channels_go_without_a_trace() -> None:
    """Inner channels whose weights are zero are what magnitude removes first, and no logit moves."""
    network = network_of("small-cnn", channels=1, size=8)
    stages = network.module.stages
    with torch.no_grad():
        for stage in stages:
            half = stage.second.out_channels // 2
            stage.second.weight[:half] = 0
            stage.second_norm.weight[:half] = 0
            stage.second_norm.bias[:half] = 0
            stage.third.weight[:, :half] = 0
    silent = sum(stage.second.out_channels // 2 for stage in stages)
    prunable = sum(stage.second.out_channels + stage.first.out_channels for stage in stages)
    part = part_of(keep=0.5, importance="magnitude", round_to=1)
    smaller = remove_channels(network, silent / prunable, part)
    assert channels_of(smaller.module) == channels_of(network.module) - silent
    torch.testing.assert_close(smaller(network.images(4)), network(network.images(4)), atol=1e-5, rtol=1e-4)


def test_a_goal_out_of_reach_is_an_error() -> None:
    """Layers keep `round_to` channels, so there is a narrowest network; asking for less says so."""
    network = network_of("small-cnn", channels=1, size=8)
    flops = network.flops(1)
    images = Pixels(network.images(8).numpy(), np.ones(8, dtype=np.int64))
    with pytest.raises(RecipeError, match="cannot be reached"):
        prune_to(
            network,
            1e-4,
            lambda narrow: narrow.flops(1) / flops,
            part_of(speed_up=10000),
            images,
            torch.zeros(8, dtype=torch.long),
        )


@given(
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=6),
    removed=st.floats(0, 1),
    round_to=st.sampled_from([1, 4, 8]),
    whole=st.booleans(),
    seed=st.integers(0, 9),
)
def test_counts_are_multiples_near_what_was_asked_for(
    sizes: list[int], removed: float, round_to: int, whole: bool, seed: int
) -> None:
    """No layer vanishes or grows; counts are multiples of `round_to`, as near in sum as rounding allows."""
    rng = np.random.default_rng(seed)
    kept = kept_counts([rng.random(size) for size in sizes], removed, round_to, whole=whole)
    for size, count in zip(sizes, kept, strict=True):
        assert min(size, round_to) <= count <= size
        assert count % round_to == 0 or count == size
    assert abs(sum(kept) - (1 - removed) * sum(sizes)) <= round_to * len(sizes) + 1


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        ("wrong", r"output of shape \(2, 6\)"),
        ("nothing", "not a torch module"),
        ("picky", "fails on images of 3x16x16"),
        ("absent", "no function 'absent'"),
    ],
)
def test_functions_that_give_no_classifier_are_refused(file: Path, function: str, rule: str) -> None:
    """What the user's function returns must take the images and give a logit per class."""
    with pytest.raises(RecipeError, match=rule):
        network_of(f"{file}:{function}")


def test_a_file_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    """An error inside the user's file is shown with the file, not as one of this project."""
    path = tmp_path / "broken.py"
    path.write_text("import nothing_of_that_name\n")
    with pytest.raises(RecipeError, match=r"broken\.py: .*import fails"):
        network_of(f"{path}:build")


def test_weights_of_another_width_do_not_load(own: ImageNetwork, tmp_path: Path) -> None:
    """A record of widths that does not go with the tensors is an error of the folder."""
    own.save(tmp_path)
    record = tmp_path / "architecture.json"
    record.write_text(record.read_text().replace('"widths": {}', '"widths": {"nowhere": {"groups": 2}}'))
    with pytest.raises(FamilyError, match="do not fit"):
        load_network(tmp_path)

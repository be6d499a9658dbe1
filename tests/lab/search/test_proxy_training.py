"""A short training: the same from the same seed, and worth something."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from effnet.arch import Arch
from effnet.lab.search.dataset import SearchDataset
from effnet.lab.search.proxy_training import PROXY_RECIPE, _batches, evaluate_proxy, load_matching, train_proxy
from effnet.net import create


def test_it_learns_and_repeats_itself(striped: SearchDataset, tiny: Arch) -> None:
    first, model = train_proxy(tiny, striped, 4, seed=0)
    again, same = train_proxy(tiny, striped, 4, seed=0)
    assert replace(first, seconds=0) == replace(again, seconds=0)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), same.parameters(), strict=True))
    assert (first.test_accuracy or 0) > 0.8  # chance: a third
    other, _ = train_proxy(tiny, striped, 4, seed=1)
    assert other.loss != first.loss
    assert evaluate_proxy(model, striped.selection) == (first.selection_accuracy, first.loss)
    assert not model.training


def test_it_leaves_the_callers_randomness_alone(striped: SearchDataset, tiny: Arch) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_proxy(tiny, striped, 1, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_without_unseen_pictures_it_is_judged_by_those_chosen_by(striped: SearchDataset, tiny: Arch) -> None:
    found, _ = train_proxy(tiny, replace(striped, judge=striped.selection, unseen=False), 1, seed=0)
    assert found.test_accuracy == found.selection_accuracy


def test_not_judged(striped: SearchDataset, tiny: Arch) -> None:
    without, _ = train_proxy(tiny, striped, 1, seed=0, evaluate_test=False)
    assert without.test_accuracy is None
    judged, _ = train_proxy(tiny, striped, 1, seed=0)
    assert replace(without, seconds=0) == replace(judged, judged=None, seconds=0)


def test_batches(striped: SearchDataset) -> None:
    part = striped.train.resize(8)
    seen = list(_batches(part, 50, True, seed=3, epoch=0))
    assert [len(classes) for _, classes in seen] == [50, 50, 50]  # the other 42 have their turn in another epoch
    assert all(pictures.shape == (50, 3, 8, 8) and pictures.dtype == torch.uint8 for pictures, _ in seen)
    again = list(_batches(part, 50, True, seed=3, epoch=0))
    assert all(torch.equal(one[0], other[0]) for one, other in zip(seen, again, strict=True))
    later = list(_batches(part, 50, True, seed=3, epoch=1))
    assert not torch.equal(seen[0][1], later[0][1])
    # moved by at most one of eight pixels, mirrored or not: each is some padded window of one of the pictures
    padded = torch.nn.functional.pad(part.images, (1,) * 4)
    windows = {padded[:, :, y : y + 8, x : x + 8].flatten(1)[row].numpy().tobytes() for y in range(3) for x in range(3)
               for row in range(len(part))}  # fmt: skip
    for pictures, _ in seen:
        for one in pictures:
            assert one.flatten().numpy().tobytes() in windows or one.flip(-1).flatten().numpy().tobytes() in windows


def test_inherited_where_shapes_allow(tiny: Arch) -> None:
    parent = create(tiny, classes=3)
    wider = replace(tiny, stages=(tiny.stages[0], replace(tiny.stages[1], channels=24)))
    child = create(wider, classes=3)
    taken = load_matching(child, parent.state_dict())
    mine, theirs = child.state_dict(), parent.state_dict()
    same = [name for name in mine if name in theirs and mine[name].shape == theirs[name].shape]
    assert taken == len(same)
    assert 0 < len(same) < len(mine)
    assert all(torch.equal(mine[name], theirs[name]) for name in same)


def test_inheriting_helps_a_short_training(striped: SearchDataset, tiny: Arch) -> None:
    _, parent = train_proxy(tiny, striped, 6, seed=0)
    fresh, _ = train_proxy(tiny, striped, 1, seed=1)
    heir, _ = train_proxy(tiny, striped, 1, seed=1, initial_weights=parent.state_dict())
    assert heir.loss < fresh.loss


def test_what_diverges_is_worth_chance(striped: SearchDataset, tiny: Arch) -> None:
    found, _ = train_proxy(
        tiny, striped, 3, seed=0, recipe=replace(PROXY_RECIPE, learning_rate=10.0, warm_up=0.0, weight_decay=1.0)
    )
    assert found.selection_accuracy <= 0.5


@pytest.mark.parametrize("many", [3, 64, 192])
def test_fewer_pictures_than_a_batch(striped: SearchDataset, tiny: Arch, many: int) -> None:
    few = replace(striped, fit=type(striped.train)(striped.train.images[:many], striped.train.classes[:many]))
    found, _ = train_proxy(tiny, few, 1, seed=0)
    assert 0 <= found.selection_accuracy <= 1

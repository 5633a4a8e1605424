"""Two processes that share a batch learn what one learns from all of it."""

import threading
from types import SimpleNamespace

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from pneumo.training import loss, sharing
from pneumo.training.network import Output
from pneumo.training.options import Loss


class Body(nn.Module):
    """Both kinds of batch norm, between layers that have weights."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.act = nn.Conv2d(4, 4, 1), BatchNormAct2d(4)
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, films):
        x = self.norm(self.first(films)).relu()
        return Output(self.head(self.act(self.second(x))), x.mean((1, 2, 3)))


def body():
    torch.manual_seed(0)
    return Body().double()


@pytest.fixture
def together(monkeypatch):
    """Run a function in two threads as if they were two processes; returns what each returned."""
    own, barrier = threading.local(), threading.Barrier(2, timeout=60)
    held = [None, None]

    def exchanged(tensor):
        held[own.rank] = tensor.clone()
        barrier.wait()
        both = [one.clone() for one in held]
        barrier.wait()
        return both

    def all_gather(each, tensor):
        for place, value in zip(each, exchanged(tensor), strict=True):
            place.copy_(value)

    fake = SimpleNamespace(
        get_rank=lambda: own.rank,
        all_gather=all_gather,
        all_reduce=lambda tensor: tensor.copy_(sum(exchanged(tensor))),
    )

    def run(function):
        results = [None, None]

        def process(rank):
            own.rank = rank
            results[rank] = function(rank)

        with monkeypatch.context() as patch:
            patch.setattr(sharing, "dist", fake)
            patch.setattr(sharing, "size", lambda: 2)
            threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
            for one in threads:
                one.start()
            for one in threads:
                one.join()
        return results

    return run


OVER_THE_BATCH = Loss(name="all", bce=1, dice=1, lovasz=1, presence=0.5)


def gradients(network, films, masks):
    """Of the loss of a batch; and the loss, and the statistics of batch norm."""
    logits, masks = sharing.gathered_output(network(films)), sharing.gathered(masks)
    value = loss.total_loss(logits, masks, OVER_THE_BATCH)
    (value * sharing.size()).backward()
    grown = {name: one.grad for name, one in network.named_parameters()}
    return value.detach(), grown, dict(network.named_buffers())


def test_loss_gradients_and_batch_norm_are_those_of_the_whole_batch(together):
    films = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    masks = (films > 1).double()
    masks[2:4] = 0  # batch Dice of two halves is not their mean
    alone, expected, statistics = gradients(body(), films, masks)
    networks = [sharing.share_batch_norm(body(), cuda=False) for _ in range(2)]
    both = together(lambda rank: gradients(networks[rank], films[rank::2], masks[rank::2]))
    for value, _, buffers in both:
        torch.testing.assert_close(value, alone)
        torch.testing.assert_close(buffers, statistics)
    averaged = {name: (both[0][1][name] + both[1][1][name]) / 2 for name in expected}  # as DDP does
    torch.testing.assert_close(averaged, expected)


def test_a_plain_mean_over_batches_is_shared_too(together):
    """``averaging.update_bn`` estimates statistics so."""
    films = torch.randn(4, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    norms = [nn.BatchNorm2d(4, momentum=None, affine=False) for _ in range(3)]
    norms[0](films)
    networks = [sharing.share_batch_norm(nn.Sequential(one), cuda=False) for one in norms[1:]]
    said = together(lambda rank: networks[rank](films[rank::2]))
    torch.testing.assert_close(torch.stack(said, 1).flatten(0, 1), norms[0](films))
    for norm in norms[1:]:
        torch.testing.assert_close(norm.running_var, norms[0].running_var)


@pytest.mark.parametrize("training", [True, False])
def test_alone_batch_norm_is_as_it_was_and_weights_keep_their_names(training):
    films = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    plain, shared = body().train(training), sharing.share_batch_norm(body(), cuda=False)
    shared.train(training)
    for ours, theirs in zip(shared(films), plain(films), strict=True):
        assert torch.equal(ours, theirs)
    assert list(shared.state_dict()) == list(plain.state_dict())


def test_on_gpus_timms_layers_keep_their_activation():
    shared = sharing.share_batch_norm(body(), cuda=True)
    assert isinstance(shared.norm, nn.SyncBatchNorm)
    assert isinstance(shared.act.act, nn.ReLU)
    assert list(shared.state_dict()) == list(body().state_dict())

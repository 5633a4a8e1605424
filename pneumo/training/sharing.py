"""What the processes of a fit compute over the films of all of them.

So that a batch that several devices share is learned from as one device would: batch Dice, the mean
over positives, or a loss of a user's own is no mean of what each device finds for its films, and
neither are the statistics of batch norm.
"""

from typing import Any

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn

from pneumo.training.network import Network, Output, batch_norms


def size() -> int:
    """How many processes work together; 1 outside of a fit of several."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gathered(own: Tensor) -> Tensor:
    """A batch (N, …) of every process → (N · processes, …), in the order of a single process.

    Only what is this process's own has a gradient. A loss of it must be multiplied by ``size()``,
    since the processes' gradients are averaged.
    """
    if size() == 1:
        return own
    each = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(size())]
    dist.all_gather(each, own.detach().contiguous())
    each[dist.get_rank()] = own
    return torch.stack(each, 1).flatten(0, 1)  # the sampler deals films out one by one


def gathered_output(own: Output) -> Output:
    """As ``gathered``, of all that a network says."""
    presence = None if own.presence is None else gathered(own.presence)
    return Output(gathered(own.mask), presence)


def any_of(flag: bool, group: Any) -> bool:
    """Whether one of the processes says so."""
    said = torch.tensor(int(flag))
    dist.all_reduce(said, dist.ReduceOp.MAX, group)
    return bool(said)


def share_batch_norm(network: Network, cuda: bool) -> Network:
    """Have batch norm take its statistics from the films of all devices; weights keep their names.

    torch's own is for GPUs alone; timm's conversion keeps the activations of its layers, which
    torch's would drop.
    """
    if cuda:
        shared: Network = convert_sync_batchnorm(network)
        return shared
    for layer in batch_norms(network):
        layer.__class__ = _SharedAct if isinstance(layer, BatchNormAct2d) else _Shared
    return network


class _Mean(torch.autograd.Function):
    """The mean of what the processes hold; its gradient is the mean of theirs."""

    @staticmethod
    def forward(context: Any, own: Tensor) -> Tensor:
        return _mean(own)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _mean(gradient)


def _mean(own: Tensor) -> Tensor:
    total = own.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / size()


def _normalized(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """``x`` (N, C, H, W) by mean and variance over all processes, which hold N films each."""
    precise = x.to(torch.promote_types(x.dtype, torch.float32))
    mean = _Mean.apply(precise.mean((0, 2, 3)))
    centred = precise - mean[:, None, None]
    variance = _Mean.apply(centred.square().mean((0, 2, 3)))
    batches = layer.num_batches_tracked
    if layer.running_mean is not None and layer.running_var is not None and batches is not None:
        batches.add_(1)
        # without a momentum, the plain mean over batches
        new = 1 / float(batches) if layer.momentum is None else layer.momentum
        count = x.numel() / x.shape[1] * size()
        layer.running_mean.lerp_(mean.detach(), new)
        layer.running_var.lerp_(variance.detach() * count / (count - 1), new)
    scale = (variance + layer.eps).rsqrt()
    if layer.affine:
        films = centred * (scale * layer.weight)[:, None, None] + layer.bias[:, None, None]
    else:
        films = centred * scale[:, None, None]
    return films.to(x.dtype)


class _Shared(nn.BatchNorm2d):
    """Batch norm over all processes on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return _normalized(self, x) if self.training and size() > 1 else super().forward(x)


class _SharedAct(BatchNormAct2d):  # type: ignore[misc]
    """The same of timm's layers, which end in an activation."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and size() > 1):
            return super().forward(x)
        return self.act(self.drop(_normalized(self, x)))

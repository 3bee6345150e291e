"""The best step that stock PyTorch offers for DeepFM on a GPU, and the loop that CTR libraries run instead."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

EPSILON = 1e-8


def tower(width: int, hidden: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip([width, *hidden[:-1]], hidden, strict=True):
        layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 1))


class StockStep:
    """One fused table, wide weights in its last column, row-wise Adagrad by index_add, fused Adam for the rest; the
    whole step in one CUDA graph, forward and loss through torch.compile. Each place adds its own square to its row's
    sum, which spares finding rows that occur twice."""

    def __init__(
        self,
        cardinalities: list[int],
        dim: int,
        hidden: list[int],
        data: tuple[torch.Tensor, torch.Tensor],
        batch: int,
        dtype: torch.dtype,
        compiled: bool = True,
    ) -> None:
        self.ids, self.labels = data
        self.dim, self.dtype = dim, dtype
        sizes = torch.tensor([0, *cardinalities[:-1]])
        self.starts = sizes.cumsum(0).cuda()
        self.table = torch.empty(sum(cardinalities), dim + 1, device="cuda").normal_(0, 1e-4)
        self.squares = torch.zeros(len(self.table), device="cuda")
        self.tower = tower(len(cardinalities) * dim, hidden).cuda()
        self.bias = nn.Parameter(torch.zeros(1, device="cuda"))
        self.adam = torch.optim.Adam([*self.tower.parameters(), self.bias], lr=1e-3, fused=True, capturable=True)
        self.index = torch.zeros(batch, dtype=torch.int64, device="cuda")
        torch._dynamo.reset()  # each step is compiled for its own shapes
        self.loss = torch.compile(self.loss_of, dynamic=False) if compiled else self.loss_of
        self.total = torch.zeros((), dtype=torch.float64, device="cuda")
        self.record()

    def loss_of(self, rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        values, wide = rows[:, :, : self.dim], rows[:, :, self.dim].sum(1)
        interaction = 0.5 * (values.sum(1).square() - values.square().sum(1)).sum(1)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            deep = self.tower(values.flatten(1)).squeeze(1)
        logits = wide + interaction + deep.float() + self.bias
        return nn.functional.binary_cross_entropy_with_logits(logits, labels)

    def step(self) -> None:
        places = (self.ids[self.index] + self.starts).flatten()
        rows = self.table.index_select(0, places).view(len(self.index), -1, self.dim + 1).requires_grad_()
        loss = self.loss(rows, self.labels[self.index])
        loss.backward()
        with torch.no_grad():
            gradient = rows.grad.view(len(places), -1)
            self.squares.index_add_(0, places, gradient.square().mean(1))
            scale = self.squares.index_select(0, places).sqrt_().add_(EPSILON).reciprocal_().mul_(-0.02)
            self.table.index_add_(0, places, gradient * scale.unsqueeze(1))
            self.adam.step()
            self.adam.zero_grad(set_to_none=True)
            self.total += loss

    def record(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.step()

    def __call__(self, index: torch.Tensor) -> None:
        self.index.copy_(index)
        self.graph.replay()


class LoopStep:
    """A table per field and per first-order field, dense gradients, Adam over all of them, one `.item()` a batch, rows
    gathered on the host: what FuxiCTR's trainer does on data in memory."""

    def __init__(
        self, cardinalities: list[int], dim: int, hidden: list[int], data: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        self.ids, self.labels = data
        self.tables = nn.ModuleList(nn.Embedding(size, dim) for size in cardinalities).cuda()
        self.wide = nn.ModuleList(nn.Embedding(size, 1) for size in cardinalities).cuda()
        self.tower = tower(len(cardinalities) * dim, hidden).cuda()
        parameters = [p for module in (self.tables, self.wide, self.tower) for p in module.parameters()]
        self.adam = torch.optim.Adam(parameters, lr=1e-3)
        self.loss = 0.0

    def __call__(self, index: torch.Tensor) -> None:
        rows = self.ids[index].long().cuda()
        labels = self.labels[index].cuda()
        values = torch.stack([table(rows[:, f]) for f, table in enumerate(self.tables)], 1)
        wide = torch.stack([table(rows[:, f]) for f, table in enumerate(self.wide)], 1).sum((1, 2))
        interaction = 0.5 * (values.sum(1).square() - values.square().sum(1)).sum(1)
        probability = torch.sigmoid(wide + interaction + self.tower(values.flatten(1)).squeeze(1))
        loss = nn.functional.binary_cross_entropy(probability, labels)
        self.adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in self.adam.param_groups for p in group["params"]], 10.0)
        self.adam.step()
        self.loss += loss.item()


def rounds(step: Callable[[torch.Tensor], None], order: torch.Tensor, batch: int, steps: int) -> float:
    """Seconds of one step: median of 5 rounds of `steps` of them, timed by the host around all."""
    seconds = []
    for number in range(6):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for i in range(steps):
            first = (i * batch) % (len(order) - batch + 1)
            step(order[first : first + batch])
        end.record()
        torch.cuda.synchronize()
        if number:
            seconds.append(begin.elapsed_time(end) / 1e3 / steps)
    return sorted(seconds)[len(seconds) // 2]

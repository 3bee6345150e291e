"""Models of other people's making, and what the tests of afm.compress do with them."""

import afm
import torch
from torch import nn

FIELDS, IDS, WIDTH, ROWS = 3, 40, 8, 400


class Ranker(nn.Module):
    """Layers in every kind of container, one used twice, one under two names, in-place activations."""

    def __init__(self, padding_idx=None):
        super().__init__()
        self.tables = nn.ModuleDict({f"f{j}": nn.Embedding(IDS, WIDTH, padding_idx=padding_idx) for j in range(FIELDS)})
        self.tower = nn.Sequential(nn.Linear(FIELDS * WIDTH, 32), nn.ReLU(inplace=True), nn.Linear(32, 24), nn.ReLU())
        self.blocks = nn.ModuleList([nn.Linear(24, 24)])
        self.again = self.blocks[0]
        self.head = nn.Linear(24, 1)

    def forward(self, ids):
        hidden = torch.cat([table(ids[:, j]) for j, table in enumerate(self.tables.values())], 1)
        hidden = self.tower(hidden)
        hidden = torch.relu_(self.blocks[0](hidden))
        return self.head(torch.relu(self.again(hidden)))


class Interactions(nn.Module):
    """A compressed interaction network: a convolution of width 1 over products of fields, [B, F F, D]."""

    def __init__(self, bias=True):
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(IDS, WIDTH) for _ in range(FIELDS)])
        self.cin = nn.Conv1d(FIELDS * FIELDS, 20, 1, bias=bias)
        self.kernels = nn.Parameter(torch.randn(2, 20, 20) / 5)
        self.head = nn.Linear(20, 1)

    def products(self, ids):
        embedded = torch.stack([table(ids[:, j]) for j, table in enumerate(self.tables)], 1)
        return (embedded[:, :, None] * embedded[:, None]).flatten(1, 2)

    def forward(self, ids):
        hidden = torch.relu(self.cin(self.products(ids))).sum(-1)
        for kernel in self.kernels:
            hidden = torch.tanh(hidden @ kernel)
        return self.head(hidden)


class Holder(nn.Module):
    """A linear layer on six numbers beside something else, which no batch reaches."""

    def __init__(self, **extra):
        super().__init__()
        self.first = nn.Linear(6, 16)
        for name, module in extra.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.first(x)


def made(cls, *args, **kwargs):
    torch.manual_seed(1)
    return cls(*args, **kwargs)


def full_ranks(model, batches, **kwargs):
    _, report = afm.compress(model, batches, energy=1.0, **kwargs)
    plan = {layer.name: min(layer.shape) for layer in report.layers if min(layer.shape) > 1}
    return {name: WIDTH if name.startswith("tables") else rank for name, rank in plan.items()}


def spread_error(model, small, *inputs):
    with torch.no_grad():
        expected = model(*inputs)
        return float((small(*inputs) - expected).abs().max() / expected.std())


def output_error(dense, pair, *inputs):
    """Mean squared distance of the outputs."""
    with torch.no_grad():
        return float((pair(*inputs) - dense(*inputs)).double().square().sum(-1).mean())


def train(model, ids, optimizer, steps=40):
    target = (ids.sum(1, keepdim=True) % 7 < 3).float()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(ids), target)
        loss.backward()
        optimizer.step()
    return float(loss.detach())

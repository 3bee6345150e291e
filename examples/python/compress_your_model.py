"""Compresses a PyTorch model of your own: trains it, makes it smaller, trains it on, saves and reloads it.

python examples/python/compress_your_model.py
"""

import copy
import tempfile
from pathlib import Path

import afm
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

FIELDS, IDS, WIDTH = 6, 200, 16


class YourModel(nn.Module):
    """Tables of one width, their concatenation, a tower: no code of libafm in it."""

    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(IDS, WIDTH) for _ in range(FIELDS)])
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.01)
        self.tower = nn.Sequential(
            nn.Linear(FIELDS * WIDTH, 128), nn.ReLU(inplace=True), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1)
        )

    def forward(self, ids):
        return self.tower(torch.cat([table(ids[:, j]) for j, table in enumerate(self.tables)], 1)).squeeze(1)


def clicks(rows: int, seed: int) -> TensorDataset:
    """Clicks that follow from two tastes per id, alone and in pairs of fields."""
    truth = torch.Generator().manual_seed(0)
    taste = torch.randn(FIELDS, IDS, 2, generator=truth)
    ids = torch.randint(IDS, (rows, FIELDS), generator=torch.Generator().manual_seed(seed))
    vectors = torch.stack([taste[j, ids[:, j]] for j in range(FIELDS)], 1)
    logits = vectors[..., 0].sum(1) + vectors[:, 0, 1] * vectors[:, 1, 1]
    return TensorDataset(ids, torch.bernoulli(torch.sigmoid(logits), generator=torch.Generator().manual_seed(seed)))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader, epochs: int, teacher=None) -> None:
    """Your own loop; with a teacher, its probabilities are a second target."""
    model.train()
    for _ in range(epochs):
        for ids, labels in loader:
            logits = model(ids)
            if teacher is None:
                loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
            else:
                with torch.no_grad():
                    wanted = teacher(ids)
                loss = afm.distillation_loss(logits, wanted, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.no_grad()
def quality(model: nn.Module, rows: TensorDataset) -> str:
    model.eval()
    ids, labels = rows.tensors
    size = sum(p.numel() for p in model.parameters())
    return f"{size:>10,} parameters   AUC {afm.auc(model(ids), labels):.4f}"


def main() -> None:
    torch.manual_seed(0)
    train_rows, test_rows = clicks(40_000, seed=1), clicks(10_000, seed=2)
    loader = DataLoader(train_rows, batch_size=1000, shuffle=True)

    model = YourModel()
    train(model, torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=1e-5), loader, epochs=4)

    small, report = afm.compress(model, loader, ratio=4, forward=lambda model, batch: model(batch[0]))
    print(report, end="\n\n")
    compressed = copy.deepcopy(small)

    optimizer = torch.optim.Adam(afm.parameter_groups(small, lr=1e-3))  # never the one from before
    report.check_optimizer(optimizer)
    train(small, optimizer, loader, epochs=2, teacher=model.eval())

    for name, stage in {"before": model, "compressed": compressed, "trained on": small}.items():
        print(f"{name:<11}{quality(stage, test_rows)}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.safetensors"
        afm.save_compressed(small, path)
        again = afm.load_compressed(YourModel(), path)
        print(f"{'reloaded':<11}{quality(again, test_rows)}")


if __name__ == "__main__":
    main()

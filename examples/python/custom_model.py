"""A PyTorch training loop of your own over a libafm model, then compression in three calls.

    python custom_model.py clicks [epochs]

afm.DeepFM is a torch.nn.Module: its parameters go into any optimizer. Prints the validation AUC of the base, of the
compressed model, and after the same loop has trained the compressed model on (with a new optimizer: the old one would
hold the old tensors).
"""

import sys

import afm
import torch


def train(model: afm.Model, train_set: afm.Dataset, epochs: int, learning_rate: float) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    batches = afm.BatchStream(train_set, batch_size=1024, seed=1)
    model.train()
    for _ in range(epochs):
        for batch in batches:
            optimizer.zero_grad()
            afm.logloss_of(model(batch.ids, batch.dense), batch.label).backward()
            optimizer.step()


def main(folder: str, epochs: int = 3) -> None:
    train_set, valid_set = afm.Dataset.open(folder, "train"), afm.Dataset.open(folder, "valid")
    torch.manual_seed(1)
    model = afm.DeepFM(train_set.schema, embedding_dim=8, hidden=[64, 64])
    train(model, train_set, epochs, 1e-3)
    print(f"base:        valid AUC {afm.evaluate(model, valid_set).auc:.4f}, {afm.parameter_count(model):,} parameters")

    statistics = afm.collect_statistics(model, train_set, whole_training_set=True)
    plan = afm.plan_ranks(statistics, ratio=3)
    small = afm.factorize(model, statistics, plan)
    print(f"compressed:  valid AUC {afm.evaluate(small, valid_set).auc:.4f}, {afm.parameter_count(small):,} parameters")

    train(small, train_set, 1, 3e-4)
    print(f"trained on:  valid AUC {afm.evaluate(small, valid_set).auc:.4f}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], *(int(value) for value in sys.argv[2:3]))

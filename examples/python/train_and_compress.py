"""The whole story of a dataset folder in Python: train DeepFM, compress it, heal it, compare, save.

    afm synth clicks.csv --rows 200000 && afm prepare clicks.csv --out clicks     (or any table of clicks)
    python train_and_compress.py clicks small.safetensors [ratio] [epochs]

Prints one line per epoch, the rank of every layer, and a table of base and compressed model on the test rows.
"""

import sys

import afm
import torch


def print_epoch(progress: afm.Progress) -> None:
    if progress.finished:
        epoch = progress.finished
        print(f"epoch {epoch.epoch:>2}  loss {epoch.train_loss:.4f}  valid AUC {epoch.valid_auc:.4f}")


def main(folder: str, output: str, ratio: float = 4.0, epochs: int = 5) -> None:
    train_set, valid_set, test_set = (afm.Dataset.open(folder, split) for split in ("train", "valid", "test"))

    torch.manual_seed(1)
    base = afm.DeepFM(train_set.schema, embedding_dim=10, hidden=[128, 128])
    afm.train(base, train_set, valid_set, epochs=epochs, on_progress=print_epoch)

    statistics = afm.collect_statistics(base, train_set, whole_training_set=True)
    plan = afm.plan_ranks(statistics, ratio=ratio)
    for line in afm.summarize(statistics, plan):
        if not line.dense:
            field = f" field {line.field}" if line.field >= 0 else ""
            print(
                f"{line.layer}{field}: {line.rows} x {line.columns}, rank {line.rank}, {100 * line.kept_energy:.1f} %"
            )

    small = afm.factorize(base, statistics, plan)
    afm.train(small, train_set, valid_set, epochs=epochs, learning_rate=3e-4, teacher=base, on_progress=print_epoch)
    print(afm.compare(base, small, test_set).to_markdown())
    afm.save_model(small, output)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], *(float(value) for value in sys.argv[3:4]), *(int(value) for value in sys.argv[4:5]))

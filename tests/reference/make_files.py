"""Writes tests/golden/files: one of every file that libafm writes, small, and what its models make of the test rows.

    PYTHONPATH=build/python python tests/reference/make_files.py

Made once by each release whose formats differ; later versions read it (tests/python/test_golden_files.py).
"""

import csv
import json
import shutil
from pathlib import Path

import afm
import numpy as np
import torch
from afm.prepare import prepare
from afm.recipe import Recipe
from safetensors.torch import save_file

FILES = Path(__file__).parent.parent / "golden" / "files"
ROWS = 400
SCHEMA = """{"label": "click", "fields": [
    {"name": "user", "min_count": 2},
    {"name": "item", "hash_buckets": 16},
    {"name": "tags", "kind": "multi", "max_values": 3},
    {"name": "price", "fill": 1.0}]}"""
TINY = {"embedding_dim": 4, "hidden": [8, 6]}
MODELS = {
    "deepfm": ("deepfm", {}),
    "dcn": ("dcn", {"cross_layers": 2}),
    "dcn_matrix": ("dcn", {"cross_layers": 2, "cross": "matrix", "batch_norm": True}),
    "wide_deep": ("wide_deep", {"batch_norm": True}),
}
FORMS = {
    "factorized": Recipe(fold=False, joint=False),
    "folded": Recipe(),
    "int8": Recipe(embedding_bits="int8", mlp_bits="int8", tiers=2),
    "int4": Recipe(embedding_bits="int4", mlp_bits="int4", scale="column", units=True),
}
REQUESTS = [{"user": "u0", "item": "i3", "tags": ["t1", "t4"], "price": 1.5}, {"user": "unknown"}]
TRAINING = {"epochs": 6, "batch_size": 32, "learning_rate": 0.02, "seed": 1}


def write_table(path: Path) -> None:
    random = np.random.default_rng(1)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["click", "user", "item", "tags", "price"])
        for _ in range(ROWS):
            user, item = random.integers(30) ** 2 // 30, random.integers(12)
            tags = "|".join(f"t{tag}" for tag in random.choice(6, random.integers(4), replace=False))
            price = f"{random.lognormal():.3f}" if random.random() < 0.9 else ""
            out.writerow([int(random.random() < 0.1 + 0.07 * item), f"u{user}", f"i{item}", tags, price])


class Stop(Exception):
    pass


def leave_checkpoint(model: afm.Model, clicks: tuple, path: Path) -> None:
    """As a run that is stopped after its second epoch leaves it."""

    def stop(progress):
        if progress.finished and progress.epoch == 2:
            raise Stop

    try:
        afm.train(model, *clicks, **TRAINING, checkpoint=str(path), on_progress=stop)
    except Stop:
        return
    raise AssertionError("training was not stopped")


def fresh(kind: str, options: dict, schema: afm.Schema) -> afm.Model:
    torch.manual_seed(1)
    return afm.make_model(kind, schema, **TINY, **options)


def write_models(clicks: tuple, test_set: afm.Dataset) -> None:
    logits = {}

    def write(name: str, model: afm.Model) -> None:
        afm.save_model(model, FILES / f"{name}.safetensors")
        logits[name] = afm.predict(model, test_set)

    for name, (kind, options) in MODELS.items():
        model = fresh(kind, options, clicks[0].schema)
        afm.train(model, *clicks, **TRAINING)
        write(name, model)
        statistics = afm.collect_statistics(model, clicks[0], whole_training_set=True, metric=True, input_moments=True)
        for form, recipe in FORMS.items():
            plan = recipe.plan(model, statistics, predicted_logloss=1e-4)
            write(f"{name}_{form}", recipe.apply(model, statistics, plan))
            if (name, form) == ("deepfm", "int4"):
                statistics.save(FILES / "statistics.safetensors")
                afm.write_plan(FILES / "plan.json", plan)
    save_file(logits, FILES / "logits.safetensors")


def main() -> None:
    torch.set_num_threads(1)
    shutil.rmtree(FILES, ignore_errors=True)
    FILES.mkdir()
    write_table(FILES / "clicks.csv")
    prepare(FILES / "clicks.csv", FILES / "clicks", schema=afm.schema_from_json(SCHEMA))
    clicks = tuple(afm.Dataset.open(FILES / "clicks", split) for split in ("train", "valid"))
    write_models(clicks, afm.Dataset.open(FILES / "clicks", "test"))
    afm.pack(FILES / "deepfm.safetensors", FILES / "clicks", FILES / "packed.safetensors")
    scores = afm.Scorer(FILES / "packed.safetensors").score_rows(REQUESTS)
    (FILES / "requests.json").write_text(json.dumps({"rows": REQUESTS, "logits": scores.tolist()}, indent=1) + "\n")
    leave_checkpoint(fresh("deepfm", {}, clicks[0].schema), clicks, FILES / "run.checkpoint")


if __name__ == "__main__":
    main()

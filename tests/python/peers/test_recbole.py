"""RecBole: every context-aware model, on the MovieLens-100k of its wheel, trained by its own trainer."""

import logging
from itertools import islice

import pytest
import recbole.model.context_aware_recommender as zoo
import torch
from harness import PeerTests, refusal
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_trainer, init_seed
from subjects import Peer, input_of, trained

WIDTH = 16
MLP = {"mlp_hidden_size": [64, 32]}
MODELS = {
    "AFM": {},
    "AutoInt": MLP,
    "DCN": MLP | {"cross_layer_num": 2},
    "DCNV2": MLP | {"cross_layer_num": 2},
    "DSSM": MLP,
    "DeepFM": MLP,
    "EulerNet": {},
    "FFM": {},
    "FM": {},
    "FNN": MLP,
    "FiGNN": {},
    "FwFM": {},
    "KD_DAGFM": {},
    "NFM": MLP,
    "PNN": MLP | {"use_outer": True},
    "WideDeep": MLP,
    "xDeepFM": MLP | {"cin_layer_size": [16, 16]},
}
REFUSED = {"LR": "ratio must be at most 1.00"}  # nothing but columns of weights, which are rank 1 already
BATCHES = 2  # of 1024 rows, for calibration and comparison
COLUMNS = {
    "inter": ["user_id", "item_id", "rating", "timestamp"],
    "user": ["user_id", "age", "gender", "occupation"],
    "item": ["item_id", "release_year", "class"],
}


def settings(name, epochs):
    return Config(
        model=name,
        dataset="ml-100k",
        config_dict=MODELS.get(name, {})
        | {
            "embedding_size": WIDTH,
            "load_col": COLUMNS,
            "threshold": {"rating": 4},
            "val_interval": {"timestamp": "[874724710,881000000]"},  # a quarter of the ratings
            "eval_args": {"split": {"RS": [8, 1, 1]}, "group_by": None, "order": "RO", "mode": "labeled"},
            "metrics": ["AUC", "LogLoss"],
            "valid_metric": "AUC",
            "train_batch_size": 1024,
            "eval_batch_size": 4096,
            "learning_rate": 3e-3,
            "epochs": epochs,
            "use_gpu": False,
            "show_progress": False,
        },
    )


def logits(model, batch):
    if hasattr(model, "sigmoid"):
        return input_of(model.sigmoid, lambda: model.predict(batch))
    return torch.logit(model.predict(batch).double())


@pytest.fixture(scope="module")
def loaders(tmp_path_factory):
    """Training and validation rows, the same for every model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("recbole"))  # where it leaves logs
        patch.setattr("sys.argv", ["recbole"])  # which it reads options from
        logging.disable(logging.WARNING)
        config = settings("DeepFM", 1)
        init_seed(config["seed"], config["reproducibility"])
        train, valid, _ = data_preparation(config, create_dataset(config))
        yield train, valid
        logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def peer(loaders):
    train, valid = loaders
    batches = list(islice(iter(train), BATCHES))

    def build(name):
        return getattr(zoo, name)(settings(name, 1), train._dataset)

    def fit(model, epochs):
        config = settings(type(model).__name__, epochs)
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        trainer.fit(train, valid, saved=False, show_progress=False)
        return trainer.optimizer

    return Peer(
        name="RecBole 1.2.1",
        build=build,
        fit=fit,
        batches=batches,
        forward=lambda model, batch: model(batch),
        logits=logits,
        labels=lambda batch: batch["label"],
        ratios={"KD_DAGFM": 1.5},  # its teacher's and its student's kernels are bare parameters
        doubles=["EulerNet"],  # the spectrum of its wide layer spans more than float32 does
        refused=REFUSED,
    )


@pytest.fixture(scope="module", params=MODELS)
def subject(request, peer):
    return trained(peer, request.param)


class TestRecBole(PeerTests):
    pass


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_with_nothing_to_compress_is_refused(peer, name):
    refusal(peer, name)

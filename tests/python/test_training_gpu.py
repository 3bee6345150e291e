"""Training with the CUDA kernels: recorded steps, precisions and row-wise Adagrad against the plain way."""

import afm
import numpy as np
import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

CARDINALITIES = [3, 50, 700, 20]


def clicks(rows: int, seed: int, cardinalities: list[int] = CARDINALITIES) -> afm.Dataset:
    weights = [np.random.default_rng(f).normal(size=size) for f, size in enumerate(cardinalities)]
    random = np.random.default_rng(seed)
    ids = np.stack([(random.random(rows) ** 2 * size).astype(np.int32) for size in cardinalities], 1)
    logits = sum(weight[ids[:, f]] for f, weight in enumerate(weights))
    label = (random.random(rows) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    schema = afm.Schema(fields=[afm.FieldSpec(name=f"f{f}", cardinality=size) for f, size in enumerate(cardinalities)])
    return afm.Dataset.from_tensors(schema, torch.from_numpy(ids), label=torch.from_numpy(label))


TRAIN, VALID = clicks(20100, 1), clicks(5000, 2)  # 20100: the last batch is not full


LARGE = [3, 50, 130_000, 20]  # a table of more than a million elements, which Adam trains row by row
LARGE_TRAIN, LARGE_VALID = clicks(20100, 1, LARGE), clicks(5000, 2, LARGE)


def trained(kind, device: str, rows: tuple[afm.Dataset, afm.Dataset] = (TRAIN, VALID), **options):
    torch.manual_seed(1)
    model = kind(rows[0].schema, embedding_dim=8, hidden=[32, 16], init_std=0.01, batch_norm=False)
    history = afm.train(model, *rows, batch_size=500, epochs=4, patience=0, device=device, **options)
    return model, history


@pytest.mark.parametrize("kind", [afm.DeepFM, afm.DCN, afm.WideDeep])
@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
def test_a_gpu_trains_to_what_the_cpu_does(kind, optimizer) -> None:
    _, cpu = trained(kind, "cpu", optimizer=optimizer)
    _, gpu = trained(kind, "cuda", optimizer=optimizer)
    assert cpu.epochs[-1].valid_auc > 0.7
    for here, there in zip(gpu.epochs, cpu.epochs, strict=True):
        assert here.train_loss == pytest.approx(there.train_loss, abs=1e-3)
        assert here.valid_auc == pytest.approx(there.valid_auc, abs=2e-3)


@pytest.mark.parametrize("l2", [0.0, 1e-3])
def test_adam_trains_a_large_table_row_by_row_on_a_gpu_as_on_the_cpu(l2) -> None:
    large = LARGE_TRAIN, LARGE_VALID
    cpu, on_cpu = trained(afm.DeepFM, "cpu", large, embedding_l2=l2)
    gpu, on_gpu = trained(afm.DeepFM, "cuda", large, embedding_l2=l2, cuda_graph=True)
    for here, there in zip(on_gpu.epochs, on_cpu.epochs, strict=True):
        assert here.train_loss == pytest.approx(there.train_loss, abs=1e-3)
        assert here.valid_auc == pytest.approx(there.valid_auc, abs=2e-3)
    table, other = (model.state_dict()["embedding.weight"].cpu() for model in (gpu, cpu))
    assert (table - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize("cross", ["vector", "matrix"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_dcn_learns_as_much_in_every_form_and_precision(cross, precision) -> None:
    def build(schema, **options):
        return afm.DCN(schema, cross=cross, **options)

    _, exact = trained(build, "cpu", optimizer="adagrad")
    _, history = trained(build, "cuda", optimizer="adagrad", precision=precision, cuda_graph=True)
    assert exact.epochs[-1].valid_auc > 0.7
    assert history.epochs[-1].valid_auc == pytest.approx(exact.epochs[-1].valid_auc, abs=3e-3)


@pytest.mark.parametrize("schedule", ["constant", "linear"])
@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
def test_a_recorded_step_is_the_step(optimizer, schedule) -> None:
    plain, _ = trained(afm.DeepFM, "cuda", optimizer=optimizer, schedule=schedule)
    recorded, history = trained(afm.DeepFM, "cuda", optimizer=optimizer, schedule=schedule, cuda_graph=True)
    assert history.epochs[-1].valid_auc > 0.7
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(recorded.state_dict()[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_other_precisions_learn_as_much(precision) -> None:
    _, exact = trained(afm.DeepFM, "cuda", optimizer="adagrad")
    _, rounded = trained(afm.DeepFM, "cuda", optimizer="adagrad", precision=precision, cuda_graph=True)
    assert rounded.epochs[-1].valid_auc == pytest.approx(exact.epochs[-1].valid_auc, abs=3e-3)
    assert rounded.epochs[-1].train_loss != exact.epochs[-1].train_loss


def test_a_recorded_run_goes_on_from_its_checkpoint(tmp_path) -> None:
    options = {"optimizer": "adagrad", "cuda_graph": True}
    whole, _ = trained(afm.DeepFM, "cuda", **options)
    path = str(tmp_path / "run")

    def stop(progress) -> None:
        if progress.finished is not None and progress.epoch == 2:
            raise KeyboardInterrupt

    torch.manual_seed(1)
    model = afm.DeepFM(TRAIN.schema, embedding_dim=8, hidden=[32, 16], init_std=0.01, batch_norm=False)
    common = {"batch_size": 500, "epochs": 4, "patience": 0, "device": "cuda", "checkpoint": path, **options}
    with pytest.raises(KeyboardInterrupt):
        afm.train(model, TRAIN, VALID, on_progress=stop, **common)
    afm.train(model, TRAIN, VALID, resume=True, **common)
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("recorded", [False, True])
def test_streamed_rows_train_as_resident_ones_do(recorded) -> None:
    options = {"optimizer": "adagrad", "cuda_graph": recorded}
    resident, _ = trained(afm.DeepFM, "cuda", data="resident", **options)
    streamed, history = trained(afm.DeepFM, "cuda", data="streamed", **options)
    assert history.epochs[-1].valid_auc > 0.7
    for name, weight in resident.state_dict().items():
        assert torch.equal(streamed.state_dict()[name], weight), name


def test_many_streamed_rows_come_in_the_order_that_the_device_draws() -> None:
    many = clicks((1 << 20) + 70_000, 3)
    models = []
    for data in ("resident", "streamed"):
        torch.manual_seed(1)
        model = afm.DeepFM(TRAIN.schema, embedding_dim=8, hidden=[16], init_std=0.01, batch_norm=False)
        afm.train(model, many, VALID, batch_size=1 << 16, epochs=1, device="cuda", data=data, optimizer="adagrad")
        models.append(model.state_dict())
    for name, weight in models[0].items():
        assert torch.equal(models[1][name], weight), name


def test_rows_on_a_gpu_cannot_be_streamed() -> None:
    model = afm.DeepFM(TRAIN.schema, embedding_dim=8, hidden=[16])
    with pytest.raises(ValueError, match="data must be auto or resident for rows on a GPU, got streamed"):
        afm.train(model, TRAIN.to("cuda"), VALID, device="cuda", data="streamed")

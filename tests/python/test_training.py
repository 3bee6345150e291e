"""train, evaluate, predict from Python."""

import _thread
import threading
import time

import afm
import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

SMALL = {"embedding_dim": 4, "hidden": [16]}


def fresh(schema: afm.Schema, **options) -> afm.DeepFM:
    torch.manual_seed(3)
    return afm.DeepFM(schema, **(SMALL | options))


def equal_states(a: afm.Model, b: afm.Model) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return set(mine) == set(theirs) and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("rows", [10, 1000])
def test_auc_and_logloss_equal_scikit_learns(rows: int):
    random = np.random.default_rng(rows)
    logits = np.round(random.normal(size=rows), 1)  # with ties
    labels = (random.random(rows) < 0.3).astype(np.float32)
    labels[:2] = [0, 1]
    probabilities = 1 / (1 + np.exp(-logits))
    assert afm.auc(logits, labels) == pytest.approx(roc_auc_score(labels, logits), abs=1e-9)
    assert afm.logloss(torch.tensor(logits), torch.tensor(labels)) == pytest.approx(
        log_loss(labels, probabilities), abs=1e-9
    )


def test_training_learns_and_leaves_the_best_weights(schema, train_set, valid_set):
    model = fresh(schema)
    seen = []
    history = afm.train(
        model, train_set, valid_set, epochs=8, batch_size=200, learning_rate=0.01, on_progress=seen.append
    )
    assert history.epochs[-1].epoch == len(history.epochs)
    best = history.epochs[history.best_epoch - 1]
    assert best.valid_auc == max(record.valid_auc for record in history.epochs) > 0.75
    metrics = afm.evaluate(model, valid_set)
    assert metrics.auc == pytest.approx(best.valid_auc, abs=1e-9)
    assert metrics.rows == len(valid_set)
    finished = [progress.finished for progress in seen if progress.finished is not None]
    assert [record.valid_auc for record in finished] == [record.valid_auc for record in history.epochs]
    assert metrics.to_dict() == {
        "auc": metrics.auc,
        "logloss": metrics.logloss,
        "rows": 1000,
        "unknown": metrics.unknown,
    }


def test_predict_gives_the_logits_in_order(schema, valid_set):
    model = fresh(schema).eval()
    whole = valid_set.range(0, len(valid_set))
    logits = afm.predict(model, valid_set, batch_size=300)
    torch.testing.assert_close(logits, model(whole.ids, whole.dense).detach())
    assert afm.evaluate(model, valid_set).auc == pytest.approx(afm.auc(logits, whole.label), abs=1e-12)


def test_options_are_taken_as_an_object_or_as_keywords(schema, train_set, valid_set):
    options = afm.TrainOptions(epochs=1, batch_size=500)
    by_object, by_keywords = fresh(schema), fresh(schema)
    afm.train(by_object, train_set, valid_set, options)
    afm.train(by_keywords, train_set, valid_set, epochs=1, batch_size=500)
    assert equal_states(by_object, by_keywords)
    with pytest.raises(TypeError, match="either options or keywords"):
        afm.train(by_object, train_set, valid_set, options, epochs=2)
    with pytest.raises(TypeError, match="TrainOptions has no field 'epoch'"):
        afm.train(by_object, train_set, valid_set, epoch=2)
    with pytest.raises(ValueError, match="TrainOptions.epochs must be"):
        afm.train(by_object, train_set, valid_set, epochs=0)


def test_a_stopped_and_resumed_training_equals_one_never_stopped(schema, train_set, valid_set, tmp_path):
    options = {"epochs": 3, "batch_size": 200, "patience": 0}
    whole = fresh(schema, dropout=0.2)
    afm.train(whole, train_set, valid_set, **options)

    checkpoint = str(tmp_path / "progress.safetensors")

    def stop_in_second_epoch(progress: afm.Progress) -> None:
        if progress.finished is not None and progress.epoch == 2:
            raise InterruptedError("enough")

    model = fresh(schema, dropout=0.2)
    with pytest.raises(InterruptedError, match="enough"):
        afm.train(model, train_set, valid_set, checkpoint=checkpoint, on_progress=stop_in_second_epoch, **options)
    torch.manual_seed(99)
    resumed = afm.DeepFM(schema, dropout=0.2, **SMALL)
    history = afm.train(resumed, train_set, valid_set, checkpoint=checkpoint, resume=True, **options)
    assert len(history.epochs) == 3
    assert equal_states(whole, resumed)


@pytest.mark.usefixtures("one_thread")
def test_many_models_at_once_are_those_of_one_run_after_the_other(schema, train_set, valid_set):
    """Keywords hold for all models or, as lists, for each."""
    options = {"epochs": 2, "batch_size": 200, "patience": 0}
    seeds, rates = [1, 2, 3], [0.01, 0.003, 0.001]
    expected, models = ([fresh(schema, dropout=0.2) for _ in seeds] for _ in range(2))
    for model, seed, rate in zip(expected, seeds, rates, strict=True):
        afm.train(model, train_set, valid_set, seed=seed, learning_rate=rate, **options)
    torch.set_num_threads(2)
    seen: list[list[int]] = [[] for _ in seeds]

    def note(place: int, progress: afm.Progress) -> None:
        assert threading.current_thread() is threading.main_thread()
        if progress.finished is not None:
            seen[place].append(progress.epoch)

    histories = afm.fit_many(models, train_set, valid_set, seed=seeds, learning_rate=rates, on_progress=note, **options)
    assert [len(history.epochs) for history in histories] == [2, 2, 2]
    assert seen == [[1, 2]] * 3
    assert all(equal_states(a, b) for a, b in zip(models, expected, strict=True))
    assert not equal_states(models[0], models[1])
    with pytest.raises(ValueError, match="seed must have a value for each of the 3 models, got 2"):
        afm.fit_many(models, train_set, valid_set, seed=[1, 2])
    with pytest.raises(ValueError, match=r"models\[1\]: TrainOptions.epochs must be"):
        afm.fit_many(models, train_set, valid_set, epochs=[1, 0, 1])


def test_ctrl_c_stops_many_models(schema, train_set, valid_set):
    threading.Timer(0.5, _thread.interrupt_main).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        afm.fit_many([fresh(schema), fresh(schema)], train_set, valid_set, epochs=100_000, patience=0)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("on_progress", [None, lambda progress: None])
def test_ctrl_c_stops_training_and_leaves_a_whole_checkpoint(schema, train_set, valid_set, tmp_path, on_progress):
    checkpoint = str(tmp_path / "progress.safetensors")
    options = {"batch_size": 50, "patience": 0, "checkpoint": checkpoint, "checkpoint_seconds": 0.05}
    model = fresh(schema)
    pressed = threading.Timer(1.0, _thread.interrupt_main)
    pressed.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        afm.train(model, train_set, valid_set, epochs=100_000, on_progress=on_progress, **options)
    assert time.monotonic() - started < 20
    assert afm.inspect(checkpoint)["kind"] == "afm-checkpoint"
    assert [path.name for path in tmp_path.iterdir()] == ["progress.safetensors"]
    epochs = 1 + history_length(checkpoint)
    history = afm.train(fresh(schema), train_set, valid_set, epochs=epochs, resume=True, **options)
    assert len(history.epochs) == epochs


def history_length(checkpoint: str) -> int:
    return len(afm.inspect(checkpoint)["metadata"]["position"]["history"]["epochs"])


def test_ctrl_c_stops_evaluation_and_statistics(schema, train_set):
    model = fresh(schema)

    def press(_rows: int) -> None:
        _thread.interrupt_main()

    with pytest.raises(KeyboardInterrupt):
        afm.evaluate(model, train_set, batch_size=10, on_progress=press)

    whole = train_set.range(0, 64)

    def next_logits() -> torch.Tensor:
        _thread.interrupt_main()
        return model(whole.ids, whole.dense)

    with pytest.raises(KeyboardInterrupt):
        afm.collect_statistics(model, next_logits=next_logits)


def test_other_threads_run_while_cpp_trains(schema, train_set, valid_set):
    model, ticks, done = fresh(schema), [], threading.Event()

    def tick() -> None:
        while not done.wait(0.005):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    started = time.monotonic()
    afm.train(model, train_set, valid_set, epochs=20, patience=0, batch_size=100)
    ended = time.monotonic()
    done.set()
    thread.join()
    assert sum(started < moment < ended for moment in ticks) > 3


def test_a_plain_pytorch_loop_gives_the_weights_of_train(schema, train_set, valid_set):
    seed, batch_size, epochs = 4, 200, 2
    # Without batch norm, before which the bias has no gradient but rounding errors, which Adam blows up.
    in_cpp, in_python = fresh(schema, batch_norm=False), fresh(schema, batch_norm=False)
    afm.train(
        in_cpp,
        train_set,
        valid_set,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        schedule="constant",
        learning_rate=1e-3,
        patience=0,
    )
    optimizer = torch.optim.Adam(in_python.parameters(), lr=1e-3)
    stream = afm.BatchStream(train_set, batch_size=batch_size, seed=seed)
    best, best_state = 0.0, {}
    for _ in range(epochs):
        in_python.train()
        for batch in stream:
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(in_python(batch.ids, batch.dense), batch.label)
            loss.backward()
            optimizer.step()
        auc = afm.evaluate(in_python, valid_set).auc
        if auc > best:
            best, best_state = auc, {name: value.clone() for name, value in in_python.state_dict().items()}
    for name, value in in_cpp.state_dict().items():
        torch.testing.assert_close(value, best_state[name], rtol=1e-3, atol=1e-4, msg=name)


def test_a_teacher_pulls_the_student(schema, train_set, valid_set):
    teacher = fresh(schema, hidden=[32])
    afm.train(teacher, train_set, valid_set, epochs=5, batch_size=200, learning_rate=0.01)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}

    def distance(**options) -> float:
        student = fresh(schema)
        afm.train(student, train_set, valid_set, epochs=3, batch_size=200, learning_rate=0.01, **options)
        return (afm.predict(student, valid_set) - afm.predict(teacher, valid_set)).pow(2).mean().item()

    assert distance(teacher=teacher, distillation=10.0) < distance()
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_logloss_has_a_gradient():
    logits = torch.randn(20, dtype=torch.float64, requires_grad=True)
    labels = (torch.rand(20) < 0.5).double()
    loss = afm.logloss_of(logits, labels)
    torch.testing.assert_close(loss, torch.nn.functional.binary_cross_entropy_with_logits(logits, labels))
    assert torch.autograd.gradcheck(lambda s: afm.logloss_of(s, labels), (logits,))


def test_data_of_another_schema_is_refused(schema, train_set, valid_set):
    other = afm.Schema([afm.FieldSpec(name="other", cardinality=5)])
    model = afm.DeepFM(other, **SMALL)
    with pytest.raises(afm.DataError):
        afm.train(model, train_set, valid_set, epochs=1)
    with pytest.raises(afm.DataError):
        afm.evaluate(model, valid_set)

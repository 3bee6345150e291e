"""What torch and ONNX do with a model, they do with its compressed copy: compile, export, ONNX twice, autocast."""

import afm
import pytest
import torch
from afm.factorized import factorized_layers
from torch import nn

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

FIELDS, IDS, WIDTH, ROWS, TOLERANCE = 3, 30, 8, 64, 1e-5


class Ranker(nn.Module):
    """Tables with and without padding, a bag, a convolution of width 1, batch norm, and a layer used twice."""

    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList(
            [nn.Embedding(IDS, WIDTH, padding_idx=j if j == 1 else None) for j in range(FIELDS)]
        )
        self.bag = nn.EmbeddingBag(IDS, WIDTH, mode="mean")
        self.mix = nn.Conv1d(FIELDS + 1, 12, 1)
        self.tower = nn.Sequential(nn.Linear(12 * WIDTH + 2, 24), nn.BatchNorm1d(24), nn.ReLU(inplace=True))
        self.block = nn.Linear(24, 24)
        self.head = nn.Linear(24, 1)

    def forward(self, ids, dense):
        embedded = [table(ids[:, j]) for j, table in enumerate(self.tables)]
        mixed = self.mix(torch.stack([*embedded, self.bag(ids)], 1))
        hidden = self.tower(torch.cat([mixed.flatten(1), dense], 1))
        hidden = torch.relu(self.block(torch.relu(self.block(hidden))))
        return self.head(hidden).squeeze(1)


def inputs(rows=ROWS, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(IDS, (rows, FIELDS), generator=generator), torch.randn(rows, 2, generator=generator)


COMPRESSIONS = {"compressed": {}, "with one basis and activations": {"basis": "shared", "activation": "shifted_relu"}}


@pytest.fixture(params=["original", *COMPRESSIONS])
def model(request):
    torch.manual_seed(2)
    original = Ranker()
    nn.init.normal_(original.head.weight, std=4)  # logits that differ
    for _ in range(20):
        original(*inputs())  # moves the statistics of batch norm
    original.eval()
    if request.param == "original":
        return original
    small, report = afm.compress(original, [inputs()], energy=0.7, **COMPRESSIONS[request.param])
    kinds = {type(pair).__name__ for pair in factorized_layers(small).values()}
    assert len(kinds) == 4 and report.parameters_after < report.parameters_before, kinds
    return small


def relative_error(given, expected):
    given, expected = (torch.as_tensor(tensor).detach().double() for tensor in (given, expected))
    assert given.shape == expected.shape and expected.std() > 0.1
    return float((given - expected).abs().max() / expected.abs().max())


def assert_same_as_eager(run, model):
    """`run` gives the logits at a batch size that it was not made with, and a wrong model would be noticed."""
    ids, dense = inputs(rows=17, seed=5)
    with torch.no_grad():
        expected = model(ids, dense)
        assert relative_error(run(ids, dense), expected) < TOLERANCE
        next(model.block.parameters()).mul_(1.01)
        assert relative_error(model(ids, dense), expected) > TOLERANCE


def test_torch_compile(model):
    run = torch.compile(model, fullgraph=True, dynamic=True)
    run(*inputs()).sum().backward()
    compiled = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.zero_grad()
    model(*inputs()).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(compiled[name], parameter.grad, rtol=1e-4, atol=1e-5)
    ids, dense = inputs(rows=17, seed=5)
    assert relative_error(run(ids, dense), model(ids, dense)) < TOLERANCE


def exported(model):
    batch = torch.export.Dim("batch", min=2)
    return torch.export.export(model, inputs(), dynamic_shapes=({0: batch}, {0: batch}))


def test_torch_export(model, tmp_path):
    torch.export.save(exported(model), tmp_path / "model.pt2")
    assert_same_as_eager(torch.export.load(tmp_path / "model.pt2").module(), model)


def in_onnx_runtime(path):
    onnx.checker.check_model(onnx.load(path))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda *values: session.run(None, {n: v.numpy() for n, v in zip(names, values, strict=True)})[0]


def test_onnx_export_of_the_exported_program(model, tmp_path):
    pytest.importorskip("onnxscript")
    path, batch = str(tmp_path / "model.onnx"), torch.export.Dim("batch", min=2)
    torch.onnx.export(model, inputs(), path, dynamo=True, dynamic_shapes=({0: batch}, {0: batch}), verbose=False)
    assert_same_as_eager(in_onnx_runtime(path), model)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_onnx_export_by_tracing(model, tmp_path):
    path, names = str(tmp_path / "model.onnx"), ["ids", "dense"]
    axes = {name: {0: "batch"} for name in [*names, "logits"]}
    torch.onnx.export(
        model, inputs(), path, dynamo=False, input_names=names, output_names=["logits"], dynamic_axes=axes
    )
    assert_same_as_eager(in_onnx_runtime(path), model)


def test_autocast(model):
    with torch.no_grad():
        expected = model(*inputs())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(*inputs())
    assert logits.dtype == torch.bfloat16
    assert 0 < relative_error(logits, expected) < 0.05  # bfloat16 holds 3 digits


def test_training_under_autocast(model):
    labels = (inputs()[0].sum(1) % 2).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    losses = []
    for _ in range(40):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.binary_cross_entropy_with_logits(model.train()(*inputs()), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert not parameter.requires_grad or not torch.equal(parameter, before[name]), name

"""Plain torch modules, ONNX and TorchScript files against the C++ models that they come from."""

import copy
import itertools

import afm
import pytest
import torch
from afm import portable_table
from afm.plan import LayerPlan, Tier
from afm.portable import portable
from planted import CARDINALITIES, planted_rows, small_schema

TIERS = [
    [Tier(10, 3), Tier(CARDINALITIES["user"] - 10, 1)],
    [Tier(5, 3), Tier(CARDINALITIES["item"] - 5, 2, shared=True)],
    [],
]
EMBEDDINGS = {
    "dense": None,
    "ranks": LayerPlan([3, 0, 2]),
    "equal ranks": LayerPlan([2, 2, 2]),
    "shared": LayerPlan([3, 2, 1], basis="shared"),
    "joint": LayerPlan([3, 2, 1], joint=True),
    "tiers": LayerPlan([3, 3, 2], tiers=TIERS),
    "folded": LayerPlan([3, 1, 2], basis="none", tiers=[TIERS[0], [], []]),
    "folded joint": LayerPlan([3, 3, 2], basis="none", joint=True),
}
INTEGERS = [("float", "row"), ("int8", "row"), ("int8", "column"), ("int4", "row"), ("int4", "column")]
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

TOLERANCE = 1e-5  # relative to 1 + |logit|: only the order of float32 sums differs


def ranks_of(form: str, bits: str, scale: str) -> dict[str, LayerPlan]:
    ranks = {"mlp.layers.1": LayerPlan([3], activation="relu", bits=bits, scale=scale)}
    embedding = copy.deepcopy(EMBEDDINGS[form]) or LayerPlan()
    embedding.bits, embedding.scale = bits, scale
    if embedding.ranks or bits != "float":
        ranks["embedding"] = embedding
    if bits != "float":
        ranks["mlp.layers.0"] = LayerPlan(bits=bits, scale=scale)
    return ranks


def options_of(kind: str, form: str) -> list[dict]:
    if kind == "dcn":
        return [{}] if "folded" in form else [{}, {"cross": "matrix"}]
    return [{}, {"interaction": "latent"}] if kind == "deepfm" and "folded" in form else [{}]


def used_model(kind: str, ranks: dict[str, LayerPlan], **options) -> afm.Model:
    """With batch norm statistics, and weights large enough that a mistake shows."""
    model = afm.make_model(kind, small_schema(), ranks=ranks, embedding_dim=4, hidden=[16, 8], **options)
    rows = planted_rows(1, 200)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        model.train()(rows["ids"], rows["dense"])
    return model.eval()


def error_of(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs() / (1 + expected.abs())).max().item()


def logits_of(model, rows: int = 200) -> torch.Tensor:
    batch = planted_rows(7, rows)
    with torch.no_grad():
        return model(batch["ids"], batch["dense"])


@pytest.mark.parametrize("padding", [portable_table.WIDEST_PADDING, 0.0], ids=["rows", "elements"])
@pytest.mark.parametrize("form", EMBEDDINGS)
@pytest.mark.parametrize("kind", afm.model_names())
def test_a_plain_module_gives_the_logits_of_the_model(kind, form, padding, monkeypatch):
    if kind == "dcn" and "joint" in form:
        pytest.skip("it has no wide weights")
    monkeypatch.setattr(portable_table, "WIDEST_PADDING", padding)
    torch.manual_seed(3)
    for (bits, scale), options in itertools.product(INTEGERS, options_of(kind, form)):
        model = used_model(kind, ranks_of(form, bits, scale), **options)
        expected = logits_of(model)
        assert expected.std() > 0.1
        for integer_layers in (False, True):
            plain = portable(model, integer_layers=integer_layers)
            assert error_of(logits_of(plain), expected) < TOLERANCE, (bits, scale, options)
        if bits != "float":  # the control: scales matter
            plain.features.table.fixed_scale.mul_(1.5)
            if scale == "row":
                plain.features.table.row_scales.mul_(1.5)
            assert error_of(logits_of(plain), expected) > TOLERANCE


def test_integers_stay_integers_where_that_is_smaller():
    torch.manual_seed(3)
    model = used_model("deepfm", ranks_of("ranks", "int8", "row"))
    assert portable(model).features.table.table.dtype == torch.int8
    assert portable(model).mlp[0].whole.weight.dtype == torch.float32
    assert portable(model, integer_layers=True).mlp[0].whole.weight.dtype == torch.int8
    narrow = used_model("dcn", {"embedding": LayerPlan([1, 1, 1], bits="int8")})
    plain = portable(narrow)
    assert plain.features.table.table.dtype == torch.float32
    assert error_of(logits_of(plain), logits_of(narrow)) < TOLERANCE


def test_a_file_that_is_no_model_is_refused(tmp_path):
    afm.save_tensors(tmp_path / "x", {"a": torch.zeros(1)})
    with pytest.raises(afm.FormatError, match="is no model file"):
        portable(tmp_path / "x")


EXPORTED = {
    "dense": ("deepfm", "dense", "float"),
    "folded": ("deepfm", "folded", "int8"),
    "tiers": ("wide_deep", "tiers", "int4"),
    "cross": ("dcn", "ranks", "float"),
}


@pytest.mark.parametrize("case", EXPORTED)
def test_onnx_runtime_agrees_at_every_batch_size(case, tmp_path):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    kind, form, bits = EXPORTED[case]
    torch.manual_seed(3)
    model, path = used_model(kind, ranks_of(form, bits, "row")), tmp_path / "model.onnx"
    afm.export_onnx(model, path)
    graph = onnx.load(path).graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["ids", "dense", "logit"]
    if case == "dense":
        assert sum(node.op_type == "Gather" for node in graph.node) == 1
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for rows in (1, 2, 37):
        found = logits_of(
            lambda ids, dense: session.run(None, {"ids": ids.numpy(), "dense": dense.numpy()})[0], rows=rows
        )
        assert error_of(torch.from_numpy(found), logits_of(model, rows)) < TOLERANCE
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("case", EXPORTED)
def test_torchscript_agrees_at_every_batch_size(case, tmp_path):
    kind, form, bits = EXPORTED[case]
    torch.manual_seed(3)
    model = used_model(kind, ranks_of(form, bits, "column"))
    afm.export_torchscript(model, tmp_path / "model.pt")
    script = torch.jit.load(tmp_path / "model.pt")
    for rows in (1, 2, 37):
        assert error_of(logits_of(script, rows), logits_of(model, rows)) < TOLERANCE
    batch = planted_rows(7, 5)
    assert torch.equal(script(batch["ids"].long(), batch["dense"]), script(batch["ids"], batch["dense"]))


def test_a_model_without_dense_features_has_one_input(tmp_path):
    torch.manual_seed(3)
    schema = afm.Schema([afm.FieldSpec(name=name, cardinality=9) for name in "ab"])
    model = afm.DeepFM(schema, embedding_dim=4, hidden=[], init_std=0.5, batch_norm=False).eval()
    afm.export_torchscript(model, tmp_path / "model.pt")
    ids = torch.randint(9, (5, 2))
    with torch.no_grad():
        assert error_of(torch.jit.load(tmp_path / "model.pt")(ids), model(ids)) < TOLERANCE


def test_afm_export_writes_files_and_asks_for_one(home):
    printed, _ = home.run("export base.safetensors --torchscript exported/base.pt")
    assert printed == f"exported/base.pt: {home.path('exported/base.pt').stat().st_size:,} bytes\n"
    assert home.complaint("export base.safetensors") == "afm: give --onnx FILE, --torchscript FILE or both"
    assert "is no model file" in home.complaint("export clicks/train-00000.safetensors --torchscript x.pt")

"""afm.Scorer, afm.pack and afm score against the models and datasets that they come from."""

import io
import json
import threading

import afm
import numpy as np
import polars as pl
import pytest
import torch
from planted import planted_rows, small_schema
from tables_of_clicks import HEADER, click_rows, write_table

TOLERANCE = 1e-5  # relative to 1 + |logit|: only the order of float32 sums differs
RANKS = {"embedding": afm.LayerPlan([3, 2, 1], bits="int8"), "mlp.layers.0": afm.LayerPlan([4], bits="int8")}


@pytest.fixture(params=[{}, RANKS], ids=["dense", "compressed"])
def saved(request, tmp_path):
    torch.manual_seed(3)
    model = afm.DeepFM(small_schema(), ranks=request.param, embedding_dim=4, hidden=[16, 8], init_std=0.5)
    rows = planted_rows(1, 300)
    with torch.no_grad():
        model.train()(rows["ids"], rows["dense"])
    afm.save_model(model.eval(), tmp_path / "model.safetensors")
    return model, tmp_path / "model.safetensors"


def test_a_scorer_gives_the_logits_of_the_model(saved):
    model, path = saved
    rows = planted_rows(2, 77)
    with torch.no_grad():
        expected = model(rows["ids"], rows["dense"]).numpy()
    scorer = afm.Scorer(path)
    assert scorer.golden_rows == 4 and scorer.file_bytes == path.stat().st_size and not scorer.is_packed
    assert scorer.model == "deepfm" and scorer.ranks == model.ranks and scorer.schema == model.schema
    for ids in (rows["ids"], rows["ids"].numpy(), rows["ids"].long(), rows["ids"].tolist()):
        found = scorer.score(ids, rows["dense"])
        assert found.dtype == np.float32 and found.shape == (77,)
        assert (np.abs(found - expected) / (1 + np.abs(expected))).max() < TOLERANCE
    assert np.abs(expected).std() > 0.3
    assert np.allclose(scorer.probabilities(rows["ids"], rows["dense"]), 1 / (1 + np.exp(-expected)), atol=1e-6)
    portable = afm.Scorer(path, simd="portable", verify=False)
    assert portable.simd == "portable"
    assert np.allclose(portable.score(rows["ids"], rows["dense"]), expected, atol=1e-4)


def test_candidates_are_rows_that_share_the_users_part(saved):
    _, path = saved
    rows = planted_rows(2, 40)
    ids, dense = rows["ids"].numpy().copy(), rows["dense"].numpy().copy()
    ids[:, 0], dense[:] = ids[0, 0], dense[0]
    scorer = afm.Scorer(path)
    candidates = scorer.candidates(["price", "user"])
    found = candidates.score(ids[0, :1], dense[0], ids[:, 1:], None)
    assert np.allclose(found, scorer.score(ids, dense), atol=1e-5)
    assert np.allclose(candidates.probabilities(ids[0, :1], dense[0], ids[:, 1:], None), 1 / (1 + np.exp(-found)))


def test_arguments_that_do_not_fit_are_refused(saved, tmp_path):
    _, path = saved
    scorer = afm.Scorer(path)
    ids = np.zeros((2, 5), np.int64)
    dense = np.zeros((2, 1))
    with pytest.raises(ValueError, match=r"ids must have the shape \[rows, 5\], got \[2, 4\]"):
        scorer.score(ids[:, :4], dense)
    with pytest.raises(ValueError, match=r"dense must have 2 rows, got 1"):
        scorer.score(ids, dense[:1])
    with pytest.raises(afm.DataError, match="field 'user'.* 60"):
        scorer.score(ids + np.array([60, 0, 0, 0, 0]), dense)
    with pytest.raises(afm.DataError, match="ids must fit int32, got 0 to 4294967297"):
        scorer.score(ids + np.array([2**32 + 1, 0, 0, 0, 0]), dense)
    with pytest.raises(TypeError, match="ids must be integers, got float64"):
        scorer.score(ids + 0.5, dense)
    for call in (scorer.score, scorer.probabilities):  # never the answer for zeros
        with pytest.raises(ValueError, match=r"dense must have the shape \[2, 1\], got None"):
            call(ids)
    with pytest.raises(ValueError, match=r"dense must have the shape \[1\], got None"):
        scorer.candidates(["price", "user"]).score(ids[0, :1], None, ids[:, 1:], None)
    with pytest.raises(ValueError, match="simd must be one of portable, avx2, avx512"):
        afm.Scorer(path, simd="sse")
    with pytest.raises(afm.DataError, match="the schema has no field 'usr'; its fields are: user, item, genres, price"):
        scorer.candidates(["usr"])
    with pytest.raises(afm.DataError, match="holds no vocabulary"):
        scorer.score_rows([{}])
    bytes_ = bytearray(path.read_bytes())
    bytes_[-1] ^= 1
    (tmp_path / "bad").write_bytes(bytes_)
    with pytest.raises(afm.FormatError, match="is damaged"):
        afm.Scorer(tmp_path / "bad")


def test_threads_may_share_a_scorer(saved):
    _, path = saved
    rows = planted_rows(2, 500)
    scorer = afm.Scorer(path)
    expected, found = scorer.score(rows["ids"], rows["dense"]), [None] * 4

    def work(place: int) -> None:
        found[place] = [scorer.score(rows["ids"], rows["dense"]) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(each, expected) for several in found for each in several)


@pytest.fixture
def packed(home):
    """`packed.safetensors`, and the probabilities of a fresh table by the long way."""
    home.run("pack base.safetensors clicks --out packed.safetensors")
    rows = click_rows(300, seed=5)
    rows[0][1:] = ["nobody", "", ""]
    write_table(home.path("new.csv"), rows)
    encoder = afm.Encoder.open(
        home.path("clicks/vocabulary.safetensors"), afm.read_schema(home.path("clicks/schema.json"))
    )
    texts = {name: [row[1 + i] for row in rows] for i, name in enumerate(HEADER[1:])}
    ids = np.concatenate(
        [encoder.encode_categorical("user", texts["user"])[:, None], encoder.encode_multi("tags", texts["tags"])], 1
    )
    dense = encoder.encode_numeric("price", [float(text or "nan") for text in texts["price"]])[:, None]
    order = [field.name for field in encoder.schema.fields if field.kind != "numeric"]
    assert order == ["user", "tags"]
    with torch.no_grad():
        logits = afm.load_model(home.path("base.safetensors"))(torch.from_numpy(ids), torch.from_numpy(dense))
    return rows, torch.sigmoid(logits).numpy()


def dicts_of(rows: list[list[str]]) -> list[dict]:
    return [
        {"user": user, "price": float(price) if price else None, "tags": tags.split("|") if tags else []}
        for _, user, price, tags in rows
    ]


def numbers(text: str) -> np.ndarray:
    return np.array([float(line) for line in text.splitlines()])


def test_a_packed_file_scores_dicts_and_json(home, packed):
    rows, expected = packed
    scorer = afm.Scorer(home.path("packed.safetensors"))
    assert scorer.is_packed and afm.load_model(home.path("packed.safetensors")).kind == "deepfm"
    assert np.allclose(scorer.score_rows(dicts_of(rows)), expected, atol=1e-6)
    assert scorer.score_json('{"user": "u3", "price": 2.0}') == pytest.approx(
        scorer.score_rows([{"user": b"u3", "price": np.float32(2)}])[0]
    )
    assert scorer.score_rows([{"price": float("nan")}])[0] == scorer.score_json("{}")
    with pytest.raises(TypeError, match="a value of a row must be a text, a number, a list or None, got set"):
        scorer.score_rows([{"user": {1}}])
    for infinite in (float("inf"), -np.float32("inf")):
        with pytest.raises(afm.DataError, match="field 'price' must be a finite number, or None where it is missing"):
            scorer.score_rows([{"price": infinite}])
    assert scorer.score_rows([{"price": np.float32("nan")}])[0] == scorer.score_json("{}")
    with pytest.raises(TypeError, match="a row must be a dict of raw values by field name, got str"):
        scorer.score_rows({"user": "u3"})


def test_candidates_of_raw_values_equal_whole_rows(home, packed):
    rows, _ = packed
    scorer = afm.Scorer(home.path("packed.safetensors"))
    user = {"user": "u7", "price": 1.5}
    items = [{"tags": row["tags"]} for row in dicts_of(rows)]
    expected = scorer.score_rows([user | item for item in items])
    assert np.allclose(scorer.score_candidates(user, items), expected, atol=1e-6)
    assert expected.std() > 0
    with pytest.raises(afm.DataError, match="an item must not have the user's field 'price'"):
        scorer.score_candidates(user, [{"price": 1.0}])


def test_afm_score_reads_every_kind_of_table(home, packed):
    rows, expected = packed
    scores = numbers(home.run("score packed.safetensors new.csv")[0])
    assert np.allclose(scores, expected, atol=1e-6)
    write_table(home.path("new.tsv"), rows, separator="\t")
    pl.DataFrame(dicts_of(rows)).write_parquet(home.path("new.parquet"))
    home.path("new.jsonl").write_text("\n".join(json.dumps(row) for row in dicts_of(rows)) + "\n\n")
    for name in ("new.tsv", "new.parquet", "new.jsonl"):
        printed, _ = home.run(f"score packed.safetensors {name} --out scores/{name}.txt")
        assert printed == ""
        assert np.allclose(numbers(home.path(f"scores/{name}.txt").read_text()), expected, atol=1e-6)
    unpacked = home.run("score base.safetensors new.csv --dataset clicks")[0]
    assert np.array_equal(numbers(unpacked), scores)


def test_afm_score_reads_json_lines_from_standard_input(home, packed, monkeypatch):
    rows, expected = packed
    lines = "".join(json.dumps(row) + "\n" for row in dicts_of(rows))
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert np.allclose(numbers(home.run("score packed.safetensors -")[0]), expected, atol=1e-6)
    monkeypatch.setattr("sys.stdin", io.StringIO('{"user": "u1"}\n{"usr": "u1"}\n'))
    printed, complaint = home.run("score packed.safetensors -", code=2)
    assert len(printed.splitlines()) == 1  # what came before is scored
    assert complaint == "afm: stdin:2: a request has a field 'usr' that the schema lacks\n"


def test_afm_score_and_pack_refuse_with_a_sentence(home, packed, tmp_path):
    assert home.complaint("score base.safetensors new.csv") == (
        "afm: base.safetensors holds no encoder; give --dataset FOLDER, or pack it first (afm pack)"
    )
    for line in ("score packed.safetensors new.csv", "pack base.safetensors clicks"):
        assert home.complaint(f"{line} --out clicks") == "afm: --out must be a file, got the folder 'clicks'"
    assert (
        home.complaint("export base.safetensors --onnx clicks") == "afm: --onnx must be a file, got the folder 'clicks'"
    )
    home.path("short.csv").write_text("user,price\nu1,2\n")
    assert home.complaint("score packed.safetensors short.csv --out x") == (
        "afm: short.csv has no column 'tags' that the model reads"
    )
    home.path("bad.csv").write_text("user,price,tags\nu1,2,a\nu1,old,a\n")
    assert "bad.csv:3: field 'price' must be a finite number" in home.complaint("score packed.safetensors bad.csv")
    other = afm.DeepFM(small_schema(), embedding_dim=2, hidden=[])
    afm.save_model(other, home.path("other.safetensors"))
    assert home.complaint("pack other.safetensors clicks --out x.safetensors") == (
        "afm: 'clicks/vocabulary.safetensors' belongs to another schema than the model"
    )

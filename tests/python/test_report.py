"""The quickstart's story on small data, and the page that it writes."""

import json
import re
import xml.etree.ElementTree as xml
from pathlib import Path

import afm
import pytest
from afm import movielens, plots, quickstart
from afm.cli import run
from afm.prepare import prepare
from afm.report import page
from tables_of_clicks import click_rows, write_table

KEYS = ["base", "control", "one_shot", "fine_tuned"]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """The result of story(), with settings that take a second, and the folder it filled."""
    folder = tmp_path_factory.mktemp("story")
    prepare(write_table(folder / "clicks.csv", click_rows(2000)), folder / "clicks")
    small = {"batch_size": 200, "learning_rate": 0.01}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart, "MODEL", {"embedding_dim": 4, "hidden": [16, 8]})
        patch.setattr(quickstart, "BASE", {**small, "epochs": 3})
        patch.setattr(quickstart, "EXTRA", {**small, "epochs": 2, "schedule": "linear", "patience": 0})
        patch.setattr(quickstart, "CURVE", (1.2, 1.5))
        result = quickstart.story(folder / "clicks", folder, ratio=1.5, seed=1, device="cpu")
    return {**result, "title": "Clicks & <tags>", "command": "afm quickstart", "machine": "2 cores"}, folder


def test_the_story_compares_the_base_the_control_and_both_compressed_models(told):
    result, _ = told
    assert [item["key"] for item in result["stages"]] == KEYS
    sizes = {item["key"]: item["parameters"] for item in result["stages"]}
    assert sizes["base"] == sizes["control"] >= 1.5 * sizes["one_shot"]
    assert sizes["one_shot"] == sizes["fine_tuned"]
    assert {name: len(epochs) for name, epochs in result["histories"].items()} == {
        "base": 3,
        "base, trained on": 2,
        "compressed, trained on": 2,
    }
    assert [point["ratio"] for point in result["curve"]] == [1.2, 1.5]
    assert result["curve"][0]["bytes"] > result["curve"][1]["bytes"]
    assert result["shrunk"] == result["stages"][0]["bytes"] / result["stages"][3]["bytes"] > 1.3


def test_the_models_of_the_story_are_left_as_files(told):
    result, folder = told
    test_set = afm.Dataset.open(folder / "clicks", "test")
    for item in result["stages"]:
        model = afm.load_model(folder / f"{item['key']}.safetensors")
        assert afm.evaluate(model, test_set).auc == pytest.approx(item["auc"], abs=1e-9)
        assert afm.parameter_count(model) == item["parameters"]
    assert afm.read_plan(folder / "plan.json") == afm.load_model(folder / "one_shot.safetensors").ranks


def test_the_page_is_self_contained_and_says_what_the_result_says(told):
    result, _ = told
    text = page(result)
    assert "Clicks &amp; &lt;tags&gt;" in text and "<tags>" not in text
    assert not re.search(r'(src|href)="(?!#)', text)  # no file and no address beside it
    assert not re.search(r"<script|@import|url\(http", text)
    for item in result["stages"]:
        assert f"<td>{item['auc']:.4f}</td>" in text
        assert f"<td>{item['parameters']:,}</td>" in text
    for layer in result["layers"]:
        assert f"<td>{layer['name']}</td>" in text
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) == 3
    for drawing in drawings:
        xml.fromstring(drawing)


def test_the_page_is_drawn_from_its_json_alone(told):
    result, _ = told
    assert page(json.loads(json.dumps(result))) == page(result)


def test_a_spectrum_marks_what_is_kept(told):
    result, _ = told
    names = [layer["name"] for layer in result["layers"]]
    assert "embedding: user" in names and "embedding: tags" in names
    for layer in result["layers"]:
        values = layer["eigenvalues"]
        assert values == sorted(values, reverse=True)
        if not layer["dense"]:
            kept = sum(values[: layer["rank"]]) / sum(values)
            assert layer["kept_energy"] == pytest.approx(kept, abs=1e-6)


@pytest.mark.parametrize(("size", "text"), [(12, "12 B"), (1500, "1.5 kB"), (2_340_000, "2.34 MB"), (5e12, "5e+03 GB")])
def test_sizes_are_written_for_people(size: float, text: str):
    assert plots.human_bytes(size) == text


def test_the_command_falls_back_to_the_generator_and_writes_everything(tmp_path: Path, monkeypatch, capsys):
    def no_network(out: Path) -> None:
        raise afm.IoError("the wheel cannot be had")

    def few_rows(path: Path, **options) -> None:
        write_table(path, click_rows(1500))

    monkeypatch.setattr(movielens, "download_movielens", no_network)
    monkeypatch.setattr(quickstart, "synth", few_rows)
    monkeypatch.setattr(quickstart, "MODEL", {"embedding_dim": 4, "hidden": [16, 8]})
    monkeypatch.setattr(quickstart, "BASE", {"batch_size": 200, "epochs": 1})
    monkeypatch.setattr(quickstart, "EXTRA", {"batch_size": 200, "epochs": 1})
    monkeypatch.setattr(quickstart, "CURVE", (1.5,))
    assert run(["quickstart", "--out", str(tmp_path / "q"), "--ratio", "1.5", "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert "the wheel cannot be had; a generated table is used instead" in printed.err
    assert "a generated table" in result["title"]
    assert result == json.loads((tmp_path / "q" / "report.json").read_text())
    assert (tmp_path / "q" / "report.html").read_text() == page(result)
    assert run(["quickstart", "--out", str(tmp_path / "q"), "--ratio", "1"]) == 2
    assert "afm: --ratio must be above 1, got 1" in capsys.readouterr().err


def test_movielens_becomes_clicks():
    import polars as pl

    ratings = pl.DataFrame(
        {"user_id": ["1", "2"], "item_id": ["9", "9"], "rating": ["4", "3"], "timestamp": ["0", "0"]}
    )
    users = pl.DataFrame(
        {
            "user_id": ["1", "2"],
            "age": ["24", "53"],
            "gender": ["M", "F"],
            "occupation": ["writer", "other"],
            "zip_code": ["85711", "T8H1N"],
        }
    )
    items = pl.DataFrame(
        {"item_id": ["9"], "movie_title": ["Heat"], "release_year": ["1995"], "class": ["Action Crime"]}
    )
    frame = movielens.clicks_of(ratings, users, items)
    assert frame["click"].to_list() == [1, 0]
    assert frame["age_band"].to_list() == ["20", "50"]
    assert frame["zip_prefix"].to_list() == ["85", "T8"]
    assert frame["genres"].to_list() == ["Action|Crime"] * 2
    schema = movielens.movielens_schema()
    assert [schema.label, *(spec.name for spec in schema.fields)] == frame.columns

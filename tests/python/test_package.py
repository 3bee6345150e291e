"""The package itself: names, stubs, version, paths."""

import ast
import subprocess
import sys
from pathlib import Path

import afm
import pytest
from afm import _core

PACKAGE = Path(afm.__file__).parent


def test_every_public_name_exists_and_is_documented_in_all():
    assert sorted(set(afm.__all__)) == sorted(afm.__all__)
    assert all(hasattr(afm, name) for name in afm.__all__)


def public_names(owner: object) -> set[str]:
    return {name for name in vars(owner) if not name.startswith("_")}


def stubbed_names(body: list[ast.stmt]) -> set[str]:
    names = set()
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            names.add(node.target.id)
        elif isinstance(node, ast.ImportFrom):
            names.update(alias.name for alias in node.names)
    return names


def test_the_stubs_list_every_public_name_of_core():
    tree = ast.parse((PACKAGE / "_core.pyi").read_text())
    classes = {node.name: stubbed_names(node.body) for node in tree.body if isinstance(node, ast.ClassDef)}
    hint = "regenerate with the CMake target afm_stubs"
    assert public_names(_core) <= stubbed_names(tree.body), hint
    for name, value in vars(_core).items():
        if isinstance(value, type) and not issubclass(value, Exception):
            assert public_names(value) <= classes[name], f"{name}: {hint}"


def test_the_stubs_are_what_the_generator_writes(tmp_path):
    pytest.importorskip("pybind11_stubgen")
    if afm._torch_check.TORCH_VERSION != "2.13.0":
        pytest.skip("other headers of pybind11 write other signatures")
    generator = Path(__file__).parents[2] / "python" / "write_stubs.py"
    subprocess.run([sys.executable, generator, tmp_path / "_core.pyi"], check=True)
    assert (tmp_path / "_core.pyi").read_text() == (PACKAGE / "_core.pyi").read_text()


def test_types_are_shipped():
    assert (PACKAGE / "py.typed").exists()


def test_the_version_is_that_of_cpp():
    text = (Path(__file__).parents[2] / "libafm" / "core" / "version.h").read_text()
    assert f'kVersion = "{afm.__version__}"' in text


def test_headers_are_found():
    assert (Path(afm.get_include()) / "libafm" / "afm.h").exists()


def test_a_build_folder_is_no_cmake_package():
    if (PACKAGE / "include").is_dir():
        assert (Path(afm.get_cmake_prefix_path()) / "lib" / "cmake" / "afm" / "afm-config.cmake").exists()
        return
    with pytest.raises(afm.Error, match="runs from a build folder"):
        afm.get_cmake_prefix_path()

"""The tests of a peer run in that peer's environment only: see run.py."""

import importlib.util

from results import write_results

NEEDS = {
    "test_deepctr_torch.py": "deepctr_torch",
    "test_fuxictr.py": "fuxictr",
    "test_longctr.py": "fuxictr",
    "test_pytorch_widedeep.py": "pytorch_widedeep",
    "test_recbole.py": "recbole",
    "test_torch_rechub.py": "torch_rechub",
}
collect_ignore = [file for file, package in NEEDS.items() if importlib.util.find_spec(package) is None]


def pytest_sessionfinish():
    write_results()

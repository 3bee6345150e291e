"""The same command with the same seed writes the same bytes, for any number of threads."""

from collections.abc import Iterator

import pytest
import torch
from home import Home

WIDE = "--set embedding_dim=8 --set hidden=256,128 --set batch_size=1000 --set epochs=3 --set dropout=0.1"
COMMANDS = [
    f"train clicks {WIDE}",
    f"train clicks {WIDE} --model dcn --set optimizer=adagrad",
    "compress base.safetensors clicks --ratio 1.3 --epochs 2",
    "compress wide.safetensors clicks --smaller 4 --epochs 2",
]


@pytest.fixture(params=[1, 2])
def threads(request) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("line", COMMANDS, ids=["train", "train-adagrad", "compress", "compress-smaller"])
def test_the_same_seed_gives_the_same_bytes(own: Home, threads: int, line: str):
    if "wide" in line:
        own.run(f"train clicks {WIDE} --out wide.safetensors")
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        own.run(f"{line} --seed {seed} --out {name}.safetensors")
        files.append(own.path(f"{name}.safetensors").read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2]

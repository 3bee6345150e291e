"""Training throughput on a GPU: libafm's models, DeepFM's best stock PyTorch step, and the loop that CTR libraries run.

    python benchmarks/train_gpu.py --rows 1.3e6 33e6 --batches 4096 65536

39 fields of Criteo's shape, power-law ids generated in memory, embedding 16, 400-400-400 without batch norm, row-wise
Adagrad on the table, Adam on the rest, data resident on the device. All in one process on one card; medians, ratios,
and the share of what the card's measured copy bandwidth and matrix rate allow: the time of the matrix products at that
rate and of 10 kB a row at that bandwidth, one after the other. --profile MODEL... lists the kernels of
our step after the first table. The libraries' own trainers run at small batches where --peers-python has them
(`pip install fuxictr==2.3.10 deepctr-torch==0.3.0 'polars<2'` beside torch).
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
import traceback
from pathlib import Path

import afm
import numpy as np
import torch
from peers.peer_process import is_installed, peer_epochs
from peers.stock_deepfm import LoopStep, StockStep, rounds

FIELDS, DIM, HIDDEN, CROSS_LAYERS = 39, 16, [400, 400, 400], 3
OTHERS = {  # beside DeepFM
    "WideDeep": lambda schema, **options: afm.WideDeep(schema, **options),
    "DCN": lambda schema, **options: afm.DCN(schema, cross_layers=CROSS_LAYERS, **options),
    "DCN-V2": lambda schema, **options: afm.DCN(schema, cross_layers=CROSS_LAYERS, cross="matrix", **options),
}
SMALL = [3, 4, 10, 15, 18, 24, 27, 30, 36, 49, 60, 80, 105, 120, 150, 200, 305, 500, 583, 633]
SMALL += [1400, 2000, 3000, 4000, 5600, 8000, 10000, 12000, 14000]  # 29 fields; the other ten share the rest
LARGE = [10, 8, 6, 5, 4, 3, 2, 2, 1, 1]
MODELS = {"DeepFM": lambda schema, **options: afm.DeepFM(schema, **options), **OTHERS}
LIBRARY_STEPS = 20
KILOBYTES_PER_ROW = 10.0  # ids, rows of the table and their update, activations and their gradients


def cardinalities_of(rows: int) -> list[int]:
    rest = rows - sum(SMALL)
    return [*SMALL, *(rest * share // sum(LARGE) for share in LARGE)]


def clicks(cardinalities: list[int], count: int, device: str = "cuda") -> tuple[torch.Tensor, torch.Tensor]:
    """ids with P(v) ~ 1 / (v + 1), labels that depend on some of them: on the device."""
    generator = torch.Generator(device).manual_seed(1)
    ids = torch.empty(count, len(cardinalities), dtype=torch.int32, device=device)
    for field, size in enumerate(cardinalities):
        share = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
        ids[:, field] = (torch.pow(size + 1.0, share) - 1).clamp_(0, size - 1).int()
    odd = (ids[:, ::5] % 2).sum(1) - 3.5
    labels = (torch.rand(count, generator=generator, device=device) < torch.sigmoid(odd - 1)).float()
    return ids, labels


def schema_of(cardinalities: list[int]) -> afm.Schema:
    return afm.Schema(fields=[afm.FieldSpec(name=f"f{i}", cardinality=size) for i, size in enumerate(cardinalities)])


def seconds_of(work, repeats: int = 10) -> float:
    work()
    taken = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        taken.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(taken)


def ceilings() -> tuple[float, dict[str, float]]:
    """Bytes a second of a copy (read and written), floating-point operations a second of a matrix product."""
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    bandwidth = 2 * source.nbytes / seconds_of(lambda: target.copy_(source))
    rates = {}
    for name, dtype in {"bf16": torch.bfloat16, "tf32": torch.float32}.items():
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
        rates[name] = 2 * 8192**3 / seconds_of(lambda a=a, b=b: a @ b)
    torch.backends.cuda.matmul.allow_tf32 = False
    return bandwidth, rates


def operations_per_row(model: str = "DeepFM") -> int:
    """Of the matrix products, forward and backward."""
    width = FIELDS * DIM
    cross = {"DCN": CROSS_LAYERS * width, "DCN-V2": CROSS_LAYERS * width**2}
    return 6 * (cross.get(model, 0) + sum(a * b for a, b in itertools.pairwise([width, *HIDDEN, 1])))


def afm_seconds(model, train_set, valid_set, batch: int, **options) -> float:
    """Seconds a step, median over epochs after the first."""
    history = afm.train(
        model,
        train_set,
        valid_set,
        batch_size=batch,
        device="cuda",
        schedule="constant",
        patience=0,
        **{"epochs": 6, "optimizer": "adagrad", **options},
    )
    steps = -(-len(train_set) // batch)
    return statistics.median(epoch.seconds for epoch in history.epochs[1:]) / steps


class Table:
    """Prints each line when it is known, with its ratio to the stock step."""

    def __init__(self, bandwidth: float, rates: dict[str, float]) -> None:
        self.bandwidth, self.rates = bandwidth, rates
        print("| rows | batch | step | ms | M rows/s | against stock | share of the ceilings |")
        print("|--:|--:|---|--:|--:|--:|--:|", flush=True)

    def line(
        self, rows: int, batch: int, name: str, seconds: float, stock: float | None, model: str = "DeepFM"
    ) -> None:
        kind = "bf16" if "bf16" in name else "tf32"
        floor = batch * (operations_per_row(model) / self.rates[kind] + KILOBYTES_PER_ROW * 1e3 / self.bandwidth)
        ratio = f"{stock / seconds:.2f}x" if stock else ""
        speed = batch / seconds / 1e6
        print(
            f"| {rows / 1e6:.1f} M | {batch:,} | {name} | {seconds * 1e3:.3f} | {speed:.2f} | {ratio} | "
            f"{floor / seconds:.0%} |",
            flush=True,
        )


def attempt(name: str, work):
    try:
        return work()
    except Exception:  # the other lines still count
        print(f"{name} failed:\n{traceback.format_exc(limit=3)[-1500:]}", flush=True)
        torch.cuda.empty_cache()
        return None


LIBRARIES = {  # module, script in benchmarks/peers
    "FuxiCTR's trainer": ("fuxictr", "fuxictr_deepfm.py"),
    "DeepCTR-Torch's fit": ("deepctr_torch", "deepctr_deepfm.py"),
}


def library_seconds(python: str, script: str, rows: dict[str, np.ndarray], sizes: dict[str, int], batch: int) -> float:
    """Seconds a step of a library's own trainer, median of five epochs of LIBRARY_STEPS batches in memory."""
    settings = {"cardinalities": sizes, "width": DIM, "dropout": 0.0, "l2": 0.0, "in_memory": True}
    settings |= {"batch": batch, "batch_norm": False, "gpu": True}
    with tempfile.TemporaryDirectory() as folder:
        epoch = peer_epochs(python, script, rows, settings, Path(folder))
        epoch()
        return statistics.median(epoch() for _ in range(5)) / LIBRARY_STEPS


def measure_libraries(cardinalities: list[int], data, batch: int, python: str, table: Table, stock) -> None:
    names = [f"f{i}" for i in range(len(cardinalities))]
    ids, labels = (tensor[: LIBRARY_STEPS * batch].numpy() for tensor in data)
    rows = {"label": labels, **{name: ids[:, field] for field, name in enumerate(names)}}
    sizes = dict(zip(names, cardinalities, strict=True))
    for name, (module, script) in LIBRARIES.items():
        if not is_installed(python, module):
            print(f"({name} is left out: {python} has no {module})", flush=True)
            continue
        seconds = attempt(name, lambda script=script: library_seconds(python, script, rows, sizes, batch))
        if seconds:
            table.line(sum(cardinalities), batch, name, seconds, stock)


def measure(rows: int, batches: list[int], count: int, table: Table, every: bool, python: str) -> None:
    """`every`: all variants and the slow loop, else what the first table is compared with."""
    cardinalities = cardinalities_of(rows)
    ids, labels = clicks(cardinalities, count)
    order = torch.randperm(count, device="cuda")
    started = time.perf_counter()
    host = ids.cpu(), labels.cpu()
    schema = schema_of(cardinalities)
    train_set = afm.Dataset.from_tensors(schema, host[0], label=host[1])
    valid_set = afm.Dataset.from_tensors(schema, host[0][:4096], label=host[1][:4096])
    model = afm.DeepFM(schema, embedding_dim=DIM, hidden=HIDDEN, batch_norm=False)
    print(f"(data and model of {rows / 1e6:.1f} M rows: {time.perf_counter() - started:.1f} s)", flush=True)
    for batch in batches:
        steps = 200 if batch < 20000 else 40
        stock = None
        for name, dtype in {"stock bf16": torch.bfloat16, "stock tf32": torch.float32}.items():
            if not (every or dtype == torch.bfloat16):
                continue
            torch.backends.cuda.matmul.allow_tf32 = True

            def stock_seconds(dtype=dtype, batch=batch, steps=steps) -> float:
                step = StockStep(cardinalities, DIM, HIDDEN, (ids, labels), batch, dtype)
                return rounds(step, order, batch, steps)

            seconds = attempt(name, stock_seconds)
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.cuda.empty_cache()
            if seconds:
                table.line(rows, batch, name, seconds, None)
                stock = stock or seconds
        variants = {
            "libafm bf16": {"precision": "bf16"},
            "libafm tf32": {"precision": "tf32"},
            "libafm bf16, atomics": {"precision": "bf16", "deterministic": False},
            "libafm bf16, Adam": {"precision": "bf16", "optimizer": "adam"},
            "libafm bf16, Adam, atomics": {"precision": "bf16", "optimizer": "adam", "deterministic": False},
            "libafm bf16, no graph": {"precision": "bf16", "cuda_graph": False, "epochs": 2},
        }
        for name, options in variants.items():
            if not every and ("tf32" in name or "graph" in name):
                continue
            seconds = attempt(name, lambda o=options, b=batch: afm_seconds(model, train_set, valid_set, b, **o))
            if seconds:
                table.line(rows, batch, name, seconds, stock)
        for kind, build in OTHERS.items() if every else ():

            def other_seconds(build=build, batch=batch) -> float:
                other = build(schema, embedding_dim=DIM, hidden=HIDDEN, batch_norm=False)
                return afm_seconds(other, train_set, valid_set, batch, precision="bf16")

            if seconds := attempt(kind, other_seconds):
                table.line(rows, batch, f"libafm bf16, {kind}", seconds, None, kind)
        if every and batch < 20000:
            step = attempt("loop", lambda: LoopStep(cardinalities, DIM, HIDDEN, host))
            if step:
                table.line(rows, batch, "FuxiCTR-style loop", rounds(step, order.cpu(), batch, 5), stock)
            measure_libraries(cardinalities, host, batch, python, table, stock)


def profile(rows: int, batch: int, count: int, kind: str, **options) -> None:
    """Kernels of our step, by their share of the time."""
    cardinalities = cardinalities_of(rows)
    ids, labels = clicks(cardinalities, count)
    schema = schema_of(cardinalities)
    train_set = afm.Dataset.from_tensors(schema, ids.cpu(), label=labels.cpu())
    valid_set = afm.Dataset.from_tensors(schema, ids[:4096].cpu(), label=labels[:4096].cpu())
    model = MODELS[kind](schema, embedding_dim=DIM, hidden=HIDDEN, batch_norm=False)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities, acc_events=True) as found:
        afm_seconds(model, train_set, valid_set, batch, epochs=2, precision="bf16", **options)
    steps = 2 * -(-len(train_set) // batch)
    kernels = [
        e
        for e in found.key_averages()
        if e.self_device_time_total > 0 and e.device_type.name == "CUDA" and "HtoD" not in e.key
    ]
    total = sum(e.self_device_time_total for e in kernels)
    how = ", atomics" if options else ""
    print(
        f"\nkernels of {kind}{how} at batch {batch:,}: {total / steps:.0f} us a step, mean of {steps} with validation"
    )
    for event in sorted(kernels, key=lambda e: -e.self_device_time_total)[:24]:
        name = event.key.replace("at::native::", "").replace("(anonymous namespace)::", "")
        print(f"{event.self_device_time_total / steps:8.1f} us {event.count / steps:6.2f}x  {name[:90]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, nargs="+", default=[1.3e6, 33e6], help="rows of the table")
    parser.add_argument("--batches", type=int, nargs="+", default=[4096, 65536])
    parser.add_argument("--samples", type=int, default=48 * 65536)
    parser.add_argument("--profile", nargs="+", choices=list(MODELS), default=[], help="list the kernels of a step")
    parser.add_argument("--peers-python", default=sys.executable, help="Python that has fuxictr and deepctr_torch")
    arguments = parser.parse_args()
    torch.manual_seed(1)
    print(f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}, libafm {afm.__version__}")
    bandwidth, rates = ceilings()
    print(f"copy {bandwidth / 1e12:.2f} TB/s, " + ", ".join(f"{n} {r / 1e12:.0f} TFLOP/s" for n, r in rates.items()))
    table = Table(bandwidth, rates)
    for place, rows in enumerate(arguments.rows):

        def work(rows=int(rows), every=place == 0) -> None:
            measure(rows, arguments.batches, arguments.samples, table, every, arguments.peers_python)

        attempt(f"{rows:.0f} rows", work)
        if place > 0 or not arguments.profile:
            continue
        for kind, batch in itertools.product(arguments.profile, arguments.batches):
            for options in ({}, {"deterministic": False}):
                attempt("profile", lambda rows=int(rows), b=batch, k=kind, o=options: profile(rows, b, 16 * b, k, **o))


if __name__ == "__main__":
    main()

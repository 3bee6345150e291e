"""Latency of scoring: libafm's scorer, ONNX Runtime, LibTorch and TorchScript, on the same models, in turns.

    pip install onnxruntime onnx onnxscript
    python benchmarks/serve.py build/libafm/serve/libafm_serve.so

The model is a DeepFM of 39 fields x 16, 400-400-400, 1 M rows, of random weights: "dense", and "compressed", some 20
times smaller in bytes (six int4 latents per id, rank 64 in each hidden layer, int8, folded). ONNX Runtime runs the
files that `afm export` writes, and for "int8" what its own quantize_dynamic makes of them. Every engine gets the same
ids, in memory that it owns or was bound to before, on one thread; the scorer is called through its C interface. Each
round gives every engine a part of the time; p50 and p99 are over the calls of all rounds.

Cold: ids are random over tables larger than the cache. Warm: all rows are of 64 ids per field.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import itertools
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

FIELDS, ROWS, DIM, HIDDEN, LATENTS, RANK = 39, 1_000_000, 16, [400, 400, 400], 6, 64
BATCHES = [1, 8, 32, 128, 1024]
CARDINALITY = ROWS // FIELDS
Run = Callable[[int], object]  # scores the batch of that number
Engine = Callable[[list[np.ndarray]], Run]  # batches of ids [B, F] int32


class Scorer:
    """The scorer behind its C interface."""

    def __init__(self, library: Path, model: Path) -> None:
        self.functions = ctypes.CDLL(str(library))
        self.functions.afm_serve_open.restype = ctypes.c_void_p
        self.functions.afm_serve_last_error.restype = ctypes.c_char_p
        self.handle = ctypes.c_void_p(self.functions.afm_serve_open(os.fsencode(model)))
        if not self.handle:
            raise RuntimeError(self.functions.afm_serve_last_error().decode())

    def __call__(self, batches: list[np.ndarray]) -> Run:
        rows = len(batches[0])
        out = np.zeros(rows, np.float32)
        score, handle, dense = self.functions.afm_serve_score, self.handle, ctypes.c_void_p()
        count, to = ctypes.c_int64(rows), ctypes.c_void_p(out.ctypes.data)
        addresses = [ctypes.c_void_p(batch.ctypes.data) for batch in batches]

        def run(number: int) -> np.ndarray:
            score(handle, addresses[number], dense, count, to)
            return out

        return run


class OnnxRuntime:
    def __init__(self, model: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def __call__(self, batches: list[np.ndarray]) -> Run:
        import onnxruntime

        out = np.zeros(len(batches[0]), np.float32)
        value = onnxruntime.OrtValue.ortvalue_from_numpy(out)
        bindings = []
        for batch in batches:
            binding = self.session.io_binding()
            binding.bind_ortvalue_input("ids", onnxruntime.OrtValue.ortvalue_from_numpy(batch))
            binding.bind_ortvalue_output("logit", value)
            bindings.append(binding)

        def run(number: int) -> np.ndarray:
            self.session.run_with_iobinding(bindings[number])
            return value

        return run


class Torch:
    """A LibTorch module: eager, or TorchScript."""

    def __init__(self, load: Callable[[], object]) -> None:
        import torch

        torch.set_num_threads(1)
        self.model = load()

    def __call__(self, batches: list[np.ndarray]) -> Run:
        import torch

        inputs = [torch.from_numpy(batch) for batch in batches]

        def run(number: int) -> np.ndarray:
            with torch.inference_mode():
                return self.model(inputs[number]).numpy()

        return run


def write_models(folder: Path) -> None:
    import afm
    import torch

    torch.manual_seed(1)
    schema = afm.Schema([afm.FieldSpec(name=f"field {i}", cardinality=CARDINALITY) for i in range(FIELDS)])
    layer = afm.LayerPlan(ranks=[RANK], bits="int8")
    table = afm.LayerPlan(ranks=[LATENTS] * FIELDS, joint=True, bits="int4", scale="column")
    ranks = {"embedding": table, **{f"mlp.layers.{i}": layer for i in range(len(HIDDEN))}}
    for name, plan in (("dense", None), ("compressed", ranks)):
        model = afm.DeepFM(schema, embedding_dim=DIM, hidden=HIDDEN, ranks=plan).eval()
        with torch.no_grad():
            (model.embedding.weight if plan is None else model.embedding.latent).normal_(0, 0.3)
        model = model if plan is None else afm.fold(model).model
        afm.save_model(model, folder / f"{name}.safetensors")
        afm.export_onnx(model, folder / f"{name}.onnx")
        afm.export_torchscript(model, folder / f"{name}.pt")


def quantize(folder: Path, name: str) -> None:
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        quant_pre_process(folder / f"{name}.onnx", folder / f"{name}.prepared.onnx", skip_symbolic_shape=True)
        quantize_dynamic(folder / f"{name}.prepared.onnx", folder / f"{name}.int8.onnx")
    logging.getLogger().setLevel(level)


def load_eager(model: Path) -> object:
    import afm

    return afm.load_model(model)


def load_script(model: Path) -> object:
    import torch

    return torch.jit.load(str(model))


def engines(folder: Path, library: Path) -> dict[str, Callable[[], Engine]]:
    made: dict[str, Callable[[], Engine]] = {}
    for name in ("dense", "compressed"):
        made[f"libafm, {name}"] = lambda name=name: Scorer(library, folder / f"{name}.safetensors")
        made[f"ONNX Runtime, {name}"] = lambda name=name: OnnxRuntime(folder / f"{name}.onnx")
        made[f"ONNX Runtime int8, {name}"] = lambda name=name: OnnxRuntime(folder / f"{name}.int8.onnx")
        made[f"LibTorch, {name}"] = lambda name=name: Torch(lambda: load_eager(folder / f"{name}.safetensors"))
        made[f"TorchScript, {name}"] = lambda name=name: Torch(lambda: load_script(folder / f"{name}.pt"))
    return made


def id_batches(rows: int, cold: bool) -> list[np.ndarray]:
    random = np.random.default_rng(rows)
    count = 512 if rows <= 32 else 16
    return [random.integers(0, CARDINALITY if cold else 64, (rows, FIELDS), dtype=np.int32) for _ in range(count)]


def timed(run: Run, count: int, seconds: float) -> list[float]:
    times, end = [], time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        number = len(times) % count
        begin = time.perf_counter_ns()
        run(number)
        times.append((time.perf_counter_ns() - begin) / 1000)
    return times


def latencies(loaded: dict[str, Engine], rows: int, cold: bool, rounds: int, seconds: float) -> dict[str, list[float]]:
    batches = id_batches(rows, cold)
    runs = {name: engine(batches) for name, engine in loaded.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(0), run(1)
    for _ in range(rounds):
        for name, run in runs.items():
            times[name] += timed(run, len(batches), seconds)
    return times


def table(loaded: dict[str, Engine], cold: bool, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Prints p50 and p99; gives the p50 of each engine at each batch."""
    by_batch = [latencies(loaded, rows, cold, rounds, seconds) for rows in BATCHES]
    print(f"\n| {'cold' if cold else 'warm'}, microseconds: p50 (p99) |" + "".join(f" {rows} |" for rows in BATCHES))
    print("|---|" + "--:|" * len(BATCHES))
    for name in loaded:
        cells = [f" {statistics.median(t[name]):.1f} ({np.percentile(t[name], 99):.0f}) |" for t in by_batch]
        print(f"| {name} |" + "".join(cells))
    return {name: [statistics.median(t[name]) for t in by_batch] for name in loaded}


def ratios(medians: dict[str, list[float]]) -> None:
    pairs = [
        ("libafm, dense", "ONNX Runtime, dense"),
        ("libafm, compressed", "ONNX Runtime, dense"),
        ("libafm, compressed", "ONNX Runtime, compressed"),
        ("libafm, compressed", "ONNX Runtime int8, dense"),
        ("libafm, compressed", "ONNX Runtime int8, compressed"),
    ]
    print("\n| times faster |" + "".join(f" {rows} |" for rows in BATCHES))
    print("|---|" + "--:|" * len(BATCHES))
    for ours, theirs in pairs:
        cells = [f" {b / a:.1f} |" for a, b in zip(medians[ours], medians[theirs], strict=True)]
        print(f"| {ours} over {theirs} |" + "".join(cells))


def empty_call(loaded: dict[str, Engine], seconds: float) -> None:
    times = timed(loaded["libafm, dense"]([np.zeros((0, FIELDS), np.int32)]), 1, seconds)
    print(f"\nof each call of the scorer, ctypes takes {statistics.median(times):.2f} microseconds: a call of no rows")


def rows_a_second(engine: Engine, rows: int, threads: int, seconds: float) -> float:
    """Threads that score batches of their own, at once."""
    done = [0] * threads
    stop = threading.Event()

    def work(number: int) -> None:
        batches = id_batches(rows, cold=True)
        run = engine(batches)
        while not stop.is_set():
            run(done[number] % len(batches))
            done[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    time.sleep(seconds / 4)
    begin, before = time.perf_counter(), sum(done)
    time.sleep(seconds)
    rate = rows * (sum(done) - before) / (time.perf_counter() - begin)
    stop.set()
    for worker in workers:
        worker.join()
    return rate


def throughput(loaded: dict[str, Engine], seconds: float) -> None:
    print("\n| thousand rows a second, cold | 1 thread, batch 32 | 2 threads | 1 thread, batch 1024 | 2 threads |")
    print("|---|--:|--:|--:|--:|")
    for name, engine in loaded.items():
        if name.startswith(("libafm", "ONNX")):
            rates = [rows_a_second(engine, rows, threads, seconds) for rows in (32, 1024) for threads in (1, 2)]
            print(f"| {name} |" + "".join(f" {rate / 1000:.0f} |" for rate in rates))


def resident_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def print_load(folder: Path, library: Path, name: str) -> None:
    """In a process of its own: milliseconds to open a model, and the resident memory that this and 1000 rows add."""
    batches = [np.random.default_rng(1).integers(0, CARDINALITY, (1, FIELDS), dtype=np.int32) for _ in range(1000)]
    engine_of = engines(folder, library)[name]
    if name.startswith("libafm"):
        ctypes.CDLL(str(library))
    else:
        import onnxruntime  # noqa: F401
    before, begin = resident_kib(), time.perf_counter()
    engine = engine_of()
    opened = time.perf_counter() - begin
    run = engine(batches)
    for number in range(len(batches)):
        run(number)
    print(f"{1000 * opened:.1f} {(resident_kib() - before) / 1024:.1f}")


def loads(folder: Path, library: Path) -> None:
    print("\n| opening | file, MB | milliseconds | resident, MiB |\n|---|--:|--:|--:|")
    for name in engines(folder, library):
        if not name.startswith(("libafm", "ONNX")):
            continue
        suffix = ".safetensors" if name.startswith("libafm") else ".int8.onnx" if "int8" in name else ".onnx"
        size = (folder / f"{name.split()[-1]}{suffix}").stat().st_size
        command = [sys.executable, __file__, str(library), "--load", name, "--folder", str(folder)]
        told = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() for _ in range(5)]
        milliseconds, memory = (statistics.median(float(one[i]) for one in told) for i in (0, 1))
        print(f"| {name} | {size / 1e6:.2f} | {milliseconds:.1f} | {memory:.1f} |")


def library_sizes(library: Path) -> None:
    import onnxruntime
    import torch

    with tempfile.TemporaryDirectory() as folder:
        stripped = Path(folder) / "stripped.so"
        subprocess.run(["strip", "-o", str(stripped), str(library)], check=True)
        ours = stripped.stat().st_size
    theirs = max(path.stat().st_size for path in Path(onnxruntime.__file__).parent.rglob("*.so*"))
    libtorch = sum(path.stat().st_size for path in (Path(torch.__file__).parent / "lib").glob("*.so*"))
    print(
        f"\nlibraries: libafm_serve {ours / 1e6:.2f} MB, ONNX Runtime {theirs / 1e6:.0f}, LibTorch {libtorch / 1e6:.0f}"
    )


def check_agreement(loaded: dict[str, Engine]) -> None:
    """Logits of the engines that compute with floats agree; a benchmark of different functions would say nothing."""
    for name, rows in itertools.product(("dense", "compressed"), (1, 32)):
        batches = id_batches(rows, cold=True)[:1]
        expected = loaded[f"LibTorch, {name}"](batches)(0)
        logits = loaded[f"libafm, {name}"](batches)(0)
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
        theirs = loaded[f"ONNX Runtime, {name}"](batches)(0).numpy()
        np.testing.assert_allclose(theirs, expected, rtol=1e-4, atol=1e-4)
        print(f"{name}, {rows} rows: logits agree with LibTorch's to {np.abs(logits - expected).max():.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scorer", type=Path, help="libafm_serve.so")
    parser.add_argument("--folder", type=Path, help="where the models are, or are written (default: temporary)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.1, help="for an engine at a batch in a round")
    parser.add_argument("--load", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        return print_load(arguments.folder, arguments.scorer, arguments.load)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "compressed.int8.onnx").exists():
            folder.mkdir(exist_ok=True)
            write_models(folder)
            for name in ("dense", "compressed"):
                quantize(folder, name)
        loaded = {name: load() for name, load in engines(folder, arguments.scorer).items()}
        check_agreement(loaded)
        ratios(table(loaded, True, arguments.rounds, arguments.seconds))
        table(loaded, False, arguments.rounds, arguments.seconds)
        empty_call(loaded, arguments.seconds)
        throughput(loaded, 4 * arguments.seconds)
        loads(folder, arguments.scorer)
        library_sizes(arguments.scorer)


if __name__ == "__main__":
    main()

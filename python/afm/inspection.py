"""What a file of libafm holds, as a dict and for people."""

from __future__ import annotations

import json
from pathlib import Path

import afm

from .console import out, print_table


def inspect(path: Path) -> dict:
    """kind, and what that kind has. Raises FormatError for a file that is not libafm's."""
    if path.is_dir():
        return inspect_dataset(path)
    if path.suffix == ".json":
        return inspect_json(path)
    file = afm.SafetensorsFile.open(path)
    metadata = file.metadata
    kind = metadata.get("kind", "safetensors")
    if kind == "afm-model":
        return inspect_model(path)
    readable = {key: decode(value) for key, value in metadata.items() if key != "kind"}
    tensors = {name: {"dtype": file.dtype(name), "shape": list(file.shape(name))} for name in file.names()}
    return {"kind": kind, **readable, "tensors": tensors, "file_bytes": path.stat().st_size}


def inspect_model(path: Path) -> dict:
    model = afm.load_model(path)
    groups = {size.group: {"parameters": size.parameters, "bytes": size.bytes} for size in afm.size_by_group(model)}
    return {
        "kind": "afm-model",
        "model": model.kind,
        "options": json.loads(model.options.to_json()),
        "ranks": model.ranks.to_dict(),
        "parameters": afm.parameter_count(model),
        "bytes": afm.byte_count(model),
        "groups": groups,
        "file_bytes": path.stat().st_size,
        "schema": json.loads(afm.schema_to_json(model.schema)),
        "notes": {key: decode(value) for key, value in model.notes.items()},
    }


def inspect_dataset(path: Path) -> dict:
    schema = afm.read_schema(str(path / "schema.json"))
    rows = {}
    for split in ("train", "valid", "test"):
        shards = sorted(path.glob(f"{split}-*.safetensors"))
        rows[split] = sum(int(afm.SafetensorsFile.open(shard).metadata.get("rows", 0)) for shard in shards)
    return {"kind": "afm-dataset", "rows": rows, "schema": json.loads(afm.schema_to_json(schema))}


def inspect_json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise afm.FormatError(f"{path} is not JSON: {error}") from error
    if isinstance(found, dict) and "kind" in found:
        return found
    if isinstance(found, dict) and "fields" in found:
        return {"kind": "schema", "schema": json.loads(afm.schema_to_json(afm.read_schema(str(path))))}
    raise afm.FormatError(f"{path} is neither a schema nor a rank plan")


def decode(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def show(found: dict) -> None:
    if found["kind"] != "afm-model":
        out.print_json(json.dumps(found, default=str))
        return
    out.print(
        f"{found['model']}, {found['parameters']:,} parameters, file of {found['file_bytes']:,} bytes", markup=False
    )
    out.print(
        "options: " + ", ".join(f"{key}={value}" for key, value in found["options"].items()),
        markup=False,
        soft_wrap=True,
    )
    rows = [[name, f"{size['parameters']:,}", f"{size['bytes']:,}"] for name, size in found["groups"].items()]
    print_table("groups", ["group", "parameters", "bytes"], rows)
    if found["ranks"]:
        ranks = [
            [layer, ", ".join(map(str, plan["ranks"])) or "dense", plan["bits"]]
            for layer, plan in found["ranks"].items()
        ]
        print_table("ranks", ["layer", "ranks", "stored as"], ranks, wrap=True)
    else:
        out.print("every layer is dense")

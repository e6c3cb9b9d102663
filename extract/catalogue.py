"""What there is to choose from: networks, their layers, and what this machine can do."""

import importlib.util
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import features

from extract.backbones import KINDS, Kind, open_backbone
from extract.decoding import Decoder
from extract.devices import computes_bf16, pick_device
from extract.errors import DecoderError
from extract.images import FORMATS
from extract.pooling import POOL_NAMES
from extract.recipe import PENULTIMATE
from extract.spec import BackboneSpec, available_cores
from extract.store.files import free_bytes
from extract.store.index import versions
from extract.taps import Node, Trunk, open_trunk, stage_ends

EXTRAS = {
    "parquet": ("pyarrow",),
    "turbo": ("simplejpeg",),
    "openvino": ("openvino",),
    "any-head": ("skops",),
    "tensorboard": ("tensorboard",),
    "ray": ("ray",),
    "cloud": ("fsspec",),
    "ray-train": ("ray", "pandas", "tensorboardX", "requests", "pyarrow", "fsspec", "pydantic"),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "serve": ("fastapi", "uvicorn", "python_multipart"),
}
"""The modules that each extra of ours brings."""


def list_layers(model: str, *, every: bool = False) -> dict[str, Any]:
    """List what a network can be tapped at: its blocks, or every node, with shape and cumulative cost.

    `parameters` and `compute` (a share of the whole network's) count what a network cut there needs.
    """
    backbone = open_backbone(BackboneSpec(model))
    size = backbone.preprocessing.crop_size
    trunk = open_trunk(backbone.network)
    profile = trunk.profile(size)
    blocks = trunk.blocks(profile, size)
    names = [node.name for node in profile if len(node.shape) in (1, 3)] if every else [name for name, _ in blocks]
    if trunk.classifier_input and not every:
        names.append(PENULTIMATE)
    nodes, total = {node.name: node for node in profile}, profile[-1].flops
    rows = [_row(name, nodes[_node_of(trunk, name)], total, stage_ends(blocks)) for name in names]
    return {
        "model": backbone.model,
        "input": [3, size, size],
        "penultimate": trunk.classifier_input,
        "layers": rows,
        "pools": list(POOL_NAMES),
        "example": f"{stage_ends(blocks)[-1]}:gem",
    }


def _node_of(trunk: Trunk, name: str) -> str:
    return trunk.penultimate() if name == PENULTIMATE else trunk.resolve(name)


def _row(name: str, node: Node, total: int, ends: list[str]) -> dict[str, Any]:
    note = f"= {node.name}" if name == PENULTIMATE else "end of a stage" if name in ends else ""
    return {
        "layer": name,
        "shape": list(node.shape),
        "parameters": node.parameters,
        "compute": round(node.flops / total, 4),
        "note": note,
    }


def list_models() -> dict[str, Any]:
    """List every network by kind, with size, cost, ImageNet accuracy of the default weights, and names of weights.

    Those that are on this machine are `local`.
    """
    kinds = (KINDS["builtin"], KINDS["torchvision"])
    return {"models": [_model(kind, name) for kind in kinds for name in kind.names()]}


def _model(kind: Kind, name: str) -> dict[str, Any]:
    listed = kind.listing(name)
    return {
        "model": listed.name,
        "parameters": listed.parameters,
        "giga_ops": listed.giga_ops,
        "top1": listed.top1,
        "weights": list(listed.weights),
        "local": sorted(kind.local(name)),
    }


def examine(cache: Path) -> dict[str, Any]:
    """Look at versions, device, decoders, the cache folder and the extras; list what stands in the way."""
    missing = [name for name in FORMATS if not _decodes(name)]
    writable, broken = _writable(cache), _broken_decoder()
    checks = {
        **versions(),
        "cores": str(available_cores()),
        "device": ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count()))) or "cpu",
        "bf16": "computed" if computes_bf16(pick_device("auto")) else "emulated, slowly",
        "image formats": ", ".join(name for name in FORMATS if name not in missing),
        "decoding processes": "start" if broken is None else "do not start",
        "cache": f"{cache} ({'writable' if writable else 'not writable'}, {free_bytes(cache) / 1e9:,.1f} GB free)",
        **{f"extra {name}": _extra(modules) for name, modules in EXTRAS.items()},
    }
    problems = [f"Pillow does not decode {name}" for name in missing]
    problems += [] if broken is None else [str(broken)]
    problems += [] if writable else [f"the cache {cache} cannot be written"]
    return {"checks": checks, "problems": problems}


def _decodes(name: str) -> bool:
    codec = {"JPEG": "jpg", "PNG": "zlib", "WEBP": "webp", "TIFF": "libtiff"}.get(name)
    return codec is None or bool(features.check(codec))


def _writable(cache: Path) -> bool:
    """Try it in the nearest folder that exists: permissions alone do not tell."""
    folder = next(parent for parent in (cache.resolve(), *cache.resolve().parents) if parent.is_dir())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.fsync(file.fileno())
    except OSError:
        return False
    return True


def _broken_decoder() -> DecoderError | None:
    """Start a process that decodes, as every extraction does, and end it."""
    decoder = Decoder(None)
    try:
        decoder.start()
    except DecoderError as error:
        return error
    finally:
        decoder.close()
    return None


def _extra(modules: Sequence[str]) -> str:
    """Say whether all that an extra brings is there, and what is not where some of it is."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if not missing:
        return "installed"
    return "not installed" if len(missing) == len(modules) else f"without {', '.join(missing)}"

"""A run becomes a program: traced, translated, compared with `predict` on images, and only then a file."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from classify.bundle import Bundle
from classify.export.compare import TOLERANCE, Answer, Roads, accuracy_lost, agreement, check
from classify.export.facts import ProgramFile, facts_of
from classify.export.images import Images, images_of, own_images
from classify.export.int8 import RANGE_IMAGES, to_int8
from classify.export.onnx_program import NEEDED, OnnxProgram, need, to_onnx
from classify.export.program import Program
from classify.export.torch_program import TorchProgram, to_torch, traced
from classify.predict import PredictSpec, open_run
from extract.errors import ExportError, OptionError, StoreError, unknown
from extract.forward import Extractor, rebuild_extractor
from extract.images import DECODERS
from extract.progress import Progress
from extract.spec import available_cores
from extract.store import files


@dataclass(frozen=True, slots=True)
class Form:
    """A form of programs: what writes one, what reads it back to be run, and the packages that takes."""

    write: Callable[..., ProgramFile]
    read: Callable[[bytes], Answer]
    needs: tuple[str, ...] = ()


FORMS = {"onnx": Form(to_onnx, OnnxProgram, NEEDED), "torch": Form(to_torch, TorchProgram)}


@dataclass(frozen=True)
class ExportSpec:
    """Which run to export, as what, and where to; `data` are the images to compare on, at most `most` of them.

    Without `data` they are images of our own. `int8` quantises the network, whose loss is then measured on `data`.
    """

    run: str
    output: Path
    form: str = "onnx"
    int8: bool = False
    data: str | None = None
    root: Path | None = None
    most: int = 512
    device: str = "auto"
    batch_size: int | None = None
    workers: int = field(default_factory=available_cores)

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            unknown("form of programs", self.form, FORMS, OptionError)
        if self.int8 and self.form != "onnx":
            raise OptionError("int8 is for ONNX", remedy="Take --format onnx, or leave --int8 out")
        if self.int8 and self.data is None:
            remedy = "Give images like those of the run, best with labels: --data DATA"
            raise OptionError("what int8 loses can only be measured on images", remedy=remedy)


def export_run(spec: ExportSpec, progress: Progress) -> dict[str, Any]:
    """Write a run as one program, if it answers as `predict` does; say what it was compared on, and what int8 loses.

    Raises ExportError where the run cannot be a program, or the program answers otherwise; then there is no file.
    """
    form = FORMS[spec.form]
    for name in form.needs:
        need(name)
    bundle, extractor = open_run(PredictSpec(spec.run, device=spec.device))
    images, plain = _images(spec, bundle), _plain(bundle)
    made = traced(Program(bundle, plain).eval(), bundle.recipe.preprocessing.crop_size)
    file = form.write(made, facts_of(bundle))
    roads = Roads(bundle, spec.batch_size or extractor.batch_size, spec.workers, progress)
    exact = extractor if plain.recipe == extractor.recipe else plain
    expected, items = roads.by_run(exact, images.compare)
    given = roads.by_program(form.read(file.data), images.compare)
    checked = {"on": images.what, "tolerance": TOLERANCE, **asdict(check(bundle, expected, given))}
    int8, data = None, file.data
    if exact is not extractor:
        own, _ = roads.by_run(extractor, images.compare)
        checked["rounded"] = {"precision": bundle.recipe.precision, **asdict(agreement(bundle, own, given))}
    if spec.int8:
        data = to_int8(file, roads.pixels(images.ranges))
        coarse = roads.by_program(form.read(data), images.compare)
        lost = accuracy_lost(bundle, images.compare, items, given, coarse)
        int8 = {"n_ranges": len(images.ranges), "accuracy": lost, **asdict(agreement(bundle, given, coarse))}
        int8["bytes_fp32"] = len(file.data)
    _write(spec.output, data)
    return {**_said(spec, bundle, data), "checked": checked, "int8": int8}


def _images(spec: ExportSpec, bundle: Bundle) -> Images:
    if spec.data is None:
        return own_images(bundle.recipe.preprocessing)
    return images_of(spec.data, spec.root, most=spec.most, ranges=RANGE_IMAGES if spec.int8 else 0)


def _plain(bundle: Bundle) -> Extractor:
    """Open the run's network on the CPU in fp32, which is what a program computes in."""
    recipe = bundle.recipe
    decoder = DECODERS["exact"] if recipe.decoder == DECODERS["gpu"] else recipe.decoder
    recipe = replace(recipe, precision="fp32", tf32=False, decoder=decoder, views=1, view_seed=0)
    return rebuild_extractor(recipe, bundle.weights_path, bundle.layers, device="cpu")


def _write(path: Path, data: bytes) -> None:
    try:
        files.replace(path, data)
    except StoreError as error:
        raise ExportError(error.what, where=error.where, remedy="Make room, or take another --output") from error


def _said(spec: ExportSpec, bundle: Bundle, data: bytes) -> dict[str, Any]:
    side = bundle.recipe.preprocessing.crop_size
    return {
        "path": str(spec.output),
        "format": spec.form,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "input": ["N", 3, side, side],
        "classes": bundle.classes,
        "features_key": bundle.recipe.key,
    }

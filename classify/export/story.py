"""A run becomes a program: traced, translated, compared with `predict` on images, and only then a file."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from classify.answering import PredictSpec, open_run
from classify.archive import SUFFIX, read_run, write_archive
from classify.deployed import Bundle
from classify.export.compare import TOLERANCE, Answer, Roads, accuracy_lost, agreement, check
from classify.export.facts import ProgramFile, facts_of
from classify.export.images import Images, images_of, own_images
from classify.export.int8 import RANGE_IMAGES, to_int8
from classify.export.onnx_program import NEEDED, OnnxProgram, need, to_onnx
from classify.export.program import Program
from classify.export.torch_program import TorchProgram, to_torch, traced
from extract.errors import ExportError, OptionError, StoreError, unknown
from extract.forward import Extractor, rebuild_extractor
from extract.images import DECODERS
from extract.loader import Loaded
from extract.progress import Progress
from extract.spec import available_cores
from extract.store import files


@dataclass(frozen=True, slots=True)
class Form:
    """A form of programs: what writes one, what reads it back to be run, and the packages that takes."""

    write: Callable[..., ProgramFile]
    read: Callable[[bytes], Answer]
    needs: tuple[str, ...] = ()


ARCHIVE = "zip"
"""The form that is no program: the bundle itself, for `predict` and `serve` elsewhere."""

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
        if self.form not in (*FORMS, ARCHIVE):
            unknown("form of a run", self.form, (*FORMS, ARCHIVE), OptionError)
        if self.form == ARCHIVE and self.output.suffix.lower() != SUFFIX:
            raise OptionError(f"an archive is called *{SUFFIX}", where=str(self.output), remedy="Take another --output")
        if self.int8 and self.form != "onnx":
            raise OptionError("int8 is for ONNX", remedy="Take --format onnx, or leave --int8 out")
        if self.int8 and self.data is None:
            remedy = "Give images like those of the run, best with labels: --data DATA"
            raise OptionError("what int8 loses can only be measured on images", remedy=remedy)
        if self.output.is_symlink() or (self.output.exists() and not self.output.is_file()):
            said = "a link, device or folder would be replaced by the file"
            raise OptionError(said, where=str(self.output), remedy="Take another --output")


def export_run(spec: ExportSpec, progress: Progress) -> dict[str, Any]:
    """Write a run as one file, and say what it was compared on, and what int8 loses.

    Raises ExportError where the run cannot be a program, or the program answers otherwise; then there is no file.
    """
    return _archive(spec) if spec.form == ARCHIVE else _program(spec, progress)


def _archive(spec: ExportSpec) -> dict[str, Any]:
    """Write the bundle of a run as one file, and read that back."""
    bundle = read_run(spec.run)  # what was unpacked of an archive lives no longer than this
    write_archive(bundle.weights_path.parent, spec.output)
    return {**_said(spec, read_run(str(spec.output)), spec.output.read_bytes()), "checked": None, "int8": None}


def _program(spec: ExportSpec, progress: Progress) -> dict[str, Any]:
    """Write a run as a program, if it answers as `predict` does."""
    form = FORMS[spec.form]
    for name in form.needs:
        need(name)
    bundle, extractor = open_run(PredictSpec(spec.run, device=spec.device))
    plain, images = _plain(bundle), _images(spec, bundle)
    made = traced(Program(bundle, plain).eval(), bundle.recipe.preprocessing.crop_size)
    file = form.write(made, facts_of(bundle))
    trial = _Trial(Roads(bundle, spec.batch_size or extractor.batch_size, spec.workers, progress), form, images)
    checked, given, items = trial.check(file.data, plain, extractor)
    data, int8 = trial.quantise(file, given, items) if spec.int8 else (file.data, None)
    _write(spec.output, data)
    return {**_said(spec, bundle, data), "checked": checked, "int8": int8}


@dataclass(frozen=True, eq=False)
class _Trial:
    """A program of some form, compared on images with the run that it is of."""

    roads: Roads
    form: Form
    images: Images

    def check(
        self, data: bytes, plain: Extractor, extractor: Extractor
    ) -> tuple[dict[str, Any], np.ndarray, list[Loaded]]:
        """Hold a program against its run: -> what was found, its probabilities (n, C), and what became of each image.

        A run in half precision is compared in full, as the program computes; how far `predict` is from that is told.
        """
        bundle, records = self.roads.bundle, self.images.compare
        exact = extractor if extractor.recipe == plain.recipe else plain
        expected, items = self.roads.by_run(exact, records)
        given = self.roads.by_program(self.form.read(data), records)
        found = {"on": self.images.what, "tolerance": TOLERANCE, **asdict(check(bundle, expected, given))}
        if exact is plain:
            own, _ = self.roads.by_run(extractor, records)
            found["rounded"] = {"precision": bundle.recipe.precision, **asdict(agreement(bundle, own, given))}
        return found, given, items

    def quantise(self, file: ProgramFile, before: np.ndarray, items: list[Loaded]) -> tuple[bytes, dict[str, Any]]:
        """Make a program int8: -> its bytes, and what that loses on the probabilities `before` (n, C)."""
        bundle, images = self.roads.bundle, self.images
        data = to_int8(file, self.roads.pixels(images.ranges))
        after = self.roads.by_program(self.form.read(data), images.compare)
        bad = [item.failure is not None for item in items]
        before = np.where(np.array(bad)[:, None], np.nan, before)
        found = asdict(agreement(bundle, before, after))
        found |= {"n_ranges": len(images.ranges), "bytes_fp32": len(file.data)}
        return data, {**found, "accuracy": accuracy_lost(bundle, images.compare, items, before, after)}


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

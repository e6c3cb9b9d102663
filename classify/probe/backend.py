"""Where the arithmetic runs: NumPy on the cores, or torch on a GPU, as one small table of array operations.

torch is imported for a GPU alone: fitting on the CPU never pays for it, and OpenBLAS is as fast (see `softmax`).
"""

import ctypes
import importlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from scipy.linalg import solve
from threadpoolctl import threadpool_info, threadpool_limits

from classify.probe.rows import Rows, bytes_of
from extract.errors import FitError, OptionError, unknown

CPU_CHUNK, GPU_CHUNK = 1 << 19, 1 << 26
"""Logits at a time: 2 MiB of float32 stay in a core's cache; a GPU wants work for all of its cores."""
RESIDENT_SHARE = 0.6
"""Of the free memory of a GPU that features may take to stay there between passes."""
CUDA_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")

Blocks = Callable[[], Iterable[tuple[slice, Any]]]


@dataclass(frozen=True)
class Backend:
    """Array operations: `xp` is NumPy or torch, which share the names and keywords that are used of them.

    `map` may work on several items at once, and gives the results in their order; `chunk` is how many logits a piece
    of work may hold.
    """

    xp: Any
    map: Callable[..., Iterable[Any]]
    width: int
    chunk: int
    device: Any = None

    def array(self, values: Any, dtype: str = "float64") -> Any:
        """Bring an array of NumPy's to the device."""
        kind = getattr(self.xp, dtype)
        if self.device is None:
            return np.asarray(values, kind)
        return self.xp.tensor(np.asarray(values), dtype=kind, device=self.device)

    def cast(self, array: Any, dtype: str) -> Any:
        """Change the type of an array of the device; one that has it already is not copied."""
        kind = getattr(self.xp, dtype)
        return array.astype(kind, copy=False) if self.device is None else array.to(kind)

    def zeros(self, shape: tuple[int, ...], dtype: str = "float64") -> Any:
        """Return zeros on the device."""
        kind = getattr(self.xp, dtype)
        return np.zeros(shape, kind) if self.device is None else self.xp.zeros(shape, dtype=kind, device=self.device)

    def host(self, array: Any) -> np.ndarray:
        """Bring an array of the device to NumPy."""
        return array if self.device is None else array.cpu().numpy()

    def moved(self, values: np.ndarray) -> Any:
        """Bring an array of NumPy's to the device, of the type it has."""
        return self.array(values, str(values.dtype))

    def solve_positive(self, A: Any, b: Any) -> Any:
        """Solve A x = b for a positive definite A (m, m), which may be overwritten: b (m, k) -> x (m, k)."""
        if self.device is None:
            return solve(A, b, assume_a="pos", overwrite_a=True)
        return self.xp.cholesky_solve(b, self.xp.linalg.cholesky(A))

    def smallest(self, values: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Pick the k smallest of each row, in any order: (n, m) -> themselves (n, k), and their columns (n, k)."""
        if self.device is None:
            at = np.argpartition(values, k - 1, axis=1)[:, :k]
            return np.take_along_axis(values, at, axis=1), at
        picked, at = self.xp.topk(values, k, dim=1, largest=False, sorted=False)
        return self.host(picked), self.host(at)

    def check_room(self, n_bytes: int) -> None:
        """Raise FitError where a GPU has less memory free; that of the cores is `memory`'s to watch."""
        if self.device is not None and n_bytes > self._free_bytes():
            said = f"{n_bytes / 1e9:.1f} GB are needed, and {self._free_bytes() / 1e9:.1f} GB are free"
            raise FitError(said, where=str(self.device), remedy="Take fewer layers at a time, or --device cpu")

    def blocks(self, rows: Rows) -> Blocks:
        """Return a walk through the rows on the device: those that fit on a GPU are brought there once."""
        if self.device is None:
            return rows.blocks
        moved = lambda: ((at, self.moved(block)) for at, block in rows.blocks())  # noqa: E731
        if bytes_of(rows.shape) > RESIDENT_SHARE * self._free_bytes():
            return moved
        kept = list(moved())
        return lambda: kept

    def _free_bytes(self) -> float:
        return self.xp.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else float("inf")


HOST = Backend(np, map, 1, CPU_CHUNK)
"""The cores, for one large product after the other: BLAS keeps all of its threads."""


@contextmanager
def numpy_backend() -> Iterator[Backend]:
    """Compute on the cores: pieces of work side by side, one thread of BLAS each: then what is no product scales too.

    As many at once as BLAS was to have threads, so that OMP_NUM_THREADS and `threadpool_limits` keep their meaning.
    """
    width = max((each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"), default=1)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(width) as pool:
        yield Backend(np, pool.map if width > 1 else map, width, CPU_CHUNK)


@contextmanager
def torch_backend(device: str) -> Iterator[Backend]:
    """Compute with torch on one device; raises OptionError where torch is missing or was built without it."""
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as missing:
        raise OptionError(f"{device} needs torch", remedy="Install torch, or take --device cpu") from missing
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise OptionError("torch sees no GPU", where=device, remedy="Install torch with CUDA, or take --device cpu")
    # Rounded to TF32, as a network may ask for in this process, near rows would be 0.001 apart.
    with torch.inference_mode(), importlib.import_module("extract.devices").full_fp32():
        yield Backend(torch, map, 1, GPU_CHUNK, torch.device(device))


@contextmanager
def open_backend(device: str) -> Iterator[Backend]:
    """Open what `pick_device` gives: "cpu", "cuda" or "cuda:1"."""
    name = pick_device(device)
    with numpy_backend() if name == "cpu" else torch_backend(name) as backend:
        yield backend


@contextmanager
def open_serial(device: str) -> Iterator[Backend]:
    """Open the same for one product after the other, where there are few of them and these are large."""
    name = pick_device(device)
    with nullcontext(HOST) if name == "cpu" else torch_backend(name) as backend:
        yield backend


def pick_device(device: str) -> str:
    """Spell out a device: "auto" is "cuda" where there is a GPU that torch can use, else "cpu"; torch is not imported.

    Raises OptionError for a GPU that is not there, and for what is no device.
    """
    if device == "auto":
        return "cuda" if gpu_count() and _torch_has_cuda() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and (kind == "cpu" or not number.isdecimal())):
        unknown("device", device, ("auto", "cpu", "cuda", "cuda:0"), OptionError)
    if kind == "cuda" and (n := gpu_count()) <= int(number or 0):
        raise OptionError(f"there is no GPU {device!r}: {n} found", remedy="Take --device auto or --device cpu")
    return device


def gpu_count() -> int:
    """Ask NVIDIA's driver how many GPUs this process may use; 0 without a driver."""
    for name in CUDA_LIBRARIES:
        try:
            cuda = ctypes.CDLL(name)
        except OSError:
            continue
        n = ctypes.c_int(0)
        return n.value if cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(n)) == 0 else 0
    return 0


def _torch_has_cuda() -> bool:
    """Tell torch's builds for CPUs by the local part of their version."""
    return not version("torch").endswith("+cpu")

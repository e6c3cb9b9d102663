"""An order, those who carry it out, and their answer; the processes are stood for by this one."""

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_story import with_bench
from tiny_story import extract_photos, write_photos

from classify.finetune import launchers, ray_train
from classify.finetune.begin import begin
from classify.finetune.bench import Bench
from classify.finetune.ground import Ground
from classify.finetune.images import find_source
from classify.finetune.job import Device
from classify.finetune.log import Log
from classify.finetune.order import ANSWER, Desk, plain
from classify.finetune.plan import Setting
from classify.finetune.shown import Shown
from classify.finetune.together import Group
from classify.finetune.trained import Trained, train_one
from classify.finetune.worker import network_of, work
from classify.spec import FitSpec
from classify.tuning import TuneSpec
from extract.errors import EngineError, OptionError, TrainingError
from extract.progress import Silent
from extract.spec import EngineSpec
from extract.store.folders import TRAININGS, open_features


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/ and the features of them in cache/."""
    folder = tmp_path_factory.mktemp("together")
    extract_photos(write_photos(folder / "photos"), folder / "cache")
    return folder


def here(desk: Desk) -> str:
    """Do it in this very process."""
    work(desk, "cpu")
    return ""


@pytest.fixture(scope="module")
def benches(root: Path) -> Iterator[dict[str, tuple[Bench, Ground]]]:
    """One on cached maps, and one on images, that train by themselves."""
    with ExitStack() as stack:
        yield {each: stack.enter_context(contextmanager(with_bench)(root, each)) for each in ("tail", "full")}


@pytest.fixture
def tail(benches) -> Iterator[tuple[Bench, Ground]]:
    """One on cached maps, whose folders go after the test."""
    yield benches["tail"]
    benches["tail"][0].forget()


def asking(bench: Bench, launch: Callable[[Desk], str] = here) -> Bench:
    """Have a bench ask others to train."""
    return replace(bench, group=Group(1, launch))


def same(got: Trained, expected: Trained) -> bool:
    pairs = [(got.outcome.state[name], value) for name, value in expected.outcome.state.items()]
    return all(torch.equal(one, other) for one, other in pairs) and got.setting == expected.setting


@pytest.mark.parametrize("strategy", ["tail", "full"])
def test_those_who_are_asked_do_just_what_would_be_done_here(benches, strategy):
    bench, ground = benches[strategy]
    setting = bench.plan.settings[0]
    expected = train_one(bench, "one", ground.last, 3, setting)
    bench.forget()
    log = Log(Silent())
    got = train_one(replace(asking(bench), log=log), "one", ground.last, 3, setting)
    assert same(got, expected)
    assert [row["step"] for row in log.rows] == [row["step"] for row in expected.outcome.history]
    bench.forget()
    assert not (bench.inputs.features.folder / TRAININGS).exists()


def test_they_search_too(tail):
    plan = replace(tail[0].plan, settings=(Setting(0.01, 0.0), Setting(0.03, 0.0)))
    bench, ground = replace(tail[0], plan=plan), tail[1]
    expected = train_one(bench, "one", ground.last, 0)
    bench.forget()
    got = train_one(asking(bench), "one", ground.last, 0)
    assert same(got, expected)
    assert [{**row, "seconds": 0} for row in got.trials] == [{**row, "seconds": 0} for row in expected.trials]
    assert got.notes == expected.notes
    bench.forget()
    assert not (bench.inputs.features.folder / TRAININGS).exists()


def test_their_errors_are_ours(tail):
    bench, ground = tail
    with pytest.raises(TrainingError) as caught:
        train_one(asking(bench, failing), "wild", ground.last, 0, Setting(1e30, 0.0))
    assert caught.value.where.startswith("wild, by step")
    assert (caught.value.what, caught.value.remedy) == ("the loss is no number any more", "Take a lower --rate")


def failing(desk: Desk) -> str:
    """Fail, and be started again, as a launcher has it."""
    with pytest.raises(TrainingError):
        work(desk, "cpu")
    return here(desk)


def test_no_answer_is_an_error_that_says_what_was_wrong(tail):
    bench, ground = tail
    with pytest.raises(EngineError, match=r"^one: the 1 processes .* without an answer \(Signal 9.*the same command"):
        train_one(asking(bench, lambda _: "Signal 9"), "one", ground.last, 0, bench.plan.settings[0])


def test_an_answer_of_before_is_not_taken_for_one_of_now(tail):
    bench, ground = tail
    setting = bench.plan.settings[0]
    train_one(asking(bench), "one", ground.last, 0, setting)
    with pytest.raises(EngineError, match="without an answer"):
        train_one(asking(bench, lambda _: "nothing"), "one", ground.last, 0, setting)


def test_an_order_comes_back_as_it_was_put_and_the_network_with_it(tail):
    bench, ground = tail
    network = begin(bench, ground.last.train, 0)
    job = bench.job("one", ground.last, 5, bench.plan.settings[0])
    order = asking(bench)._order(network, job, searching=True)
    desk = Desk(bench.inputs.features.folder / TRAININGS / ("0" * 16), "0" * 64)
    desk.put(order)
    bench.folders.add(desk.folder)
    got = desk.order()
    assert equal(plain(got), plain(order))
    assert (got.job.plan, got.job.setting, got.shown.features) == (job.plan, job.setting, order.shown.features)
    assert network_of(got).frozen_digest() == network.frozen_digest()


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    return np.array_equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_an_order_that_is_not_there_is_told_of(tmp_path):
    with pytest.raises(TrainingError, match=r"no order.*under the same path"):
        work(Desk(tmp_path, "0" * 64), "cpu")
    assert (tmp_path / ANSWER).exists()


def asked(**changes: Any) -> tuple[FitSpec, Any]:
    engine = changes.pop("engine", EngineSpec())
    return FitSpec("tiny", strategy="full", engine=engine, tune=TuneSpec(**changes)), SimpleNamespace(batch_size=4)


def test_a_group_is_made_where_one_is_asked_for():
    assert launchers.group_of(*asked(), Device()) is None
    assert launchers.group_of(*asked(processes=1), Device()) is None
    assert launchers.group_of(*asked(processes=3), Device()).size == 3
    with pytest.raises(OptionError, match=r"5 processes .* steps of 4 images.*--processes 4"):
        launchers.group_of(*asked(processes=5), Device())


def test_what_is_otherwise_is_said():
    alone, two, (_, plan) = None, Group(2, here), asked()
    assert launchers.notes_of(alone, plan) == []
    plan.bn = "frozen"
    [shared] = launchers.notes_of(two, plan)
    assert shared.startswith("2 processes train each network together, on 2 or so of the images")
    plan.bn = "train"
    assert "by themselves" in launchers.notes_of(two, plan)[1]
    assert launchers.notes_of(replace(two, kind="cuda", notes=("there",)), plan) == [shared, "there"]
    assert launchers.notes_of(Group(1, here, notes=("there",)), plan) == ["there"]


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert launchers.group_of(*asked(processes=2), Device("cuda")).launch.keywords == {"devices": ["cuda:0", "cuda:1"]}
    assert launchers.group_of(*asked(processes=2), Device()).launch.keywords == {"devices": ["cpu", "cpu"]}
    assert launchers.group_of(*asked(processes=2), Device("cuda")).kind == "cuda"
    with pytest.raises(OptionError, match=r"3 processes need a GPU each, and there are 2"):
        launchers.group_of(*asked(processes=3), Device("cuda"))


CLUSTER = EngineSpec("ray", "auto")
THERE = "they train on GPUs of the cluster, in fp32; all else is computed here, on the CPU"
FEW = "the cluster has 2 GPUs now: a training begins when it has 3"
NONE = "no machine of the cluster has a GPU now: they train on CPUs"


@pytest.mark.parametrize(
    ("asked_for", "has", "gpus", "kind", "said"),
    [
        ("auto", "cpu", 4, "cuda", [THERE]),
        ("auto", "cpu", 2, "cuda", [THERE, FEW]),
        ("auto", "cpu", 0, "cpu", [NONE]),
        ("cpu", "cpu", 4, "cpu", []),
        ("auto", "cuda", 4, "cuda", []),
        ("cuda", "cuda", 2, "cuda", [FEW]),
    ],
)
def test_a_cluster_trains_on_its_gpus_whatever_this_machine_has(monkeypatch, asked_for, has, gpus, kind, said):
    modules = {"ray": SimpleNamespace(cluster_resources=lambda: {"CPU": 8.0, "GPU": float(gpus)} if gpus else {})}
    monkeypatch.setattr(ray_train.importlib, "import_module", lambda name: modules.get(name))
    spec, plan = asked(processes=3, engine=CLUSTER)
    group = launchers.group_of(replace(spec, device=asked_for), plan, Device(has))
    assert (group.kind, group.launch.keywords["device"], list(group.notes)) == (kind, kind, said)


def test_a_private_ray_has_no_more_gpus_than_this_machine(monkeypatch):
    monkeypatch.setattr(ray_train, "gpus", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(OptionError, match=r"2 processes need a GPU each, and there are 1"):
        launchers.group_of(*asked(processes=2, engine=EngineSpec("ray")), Device("cuda"))


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is an address of the loopback there alone")
def test_the_store_where_workers_of_ray_meet_listens_on_one_address(monkeypatch):
    modules = {
        "ray": SimpleNamespace(util=SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1")),
        "ray.train.collective": SimpleNamespace(broadcast_from_rank_zero=lambda said: said),
    }
    monkeypatch.setattr(ray_train.importlib, "import_module", modules.get)
    store = ray_train._met(0, 1)
    store.set("word", "said")
    assert store.get("word") == b"said"
    socket.create_connection(("127.0.0.1", store.port)).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", store.port))


@pytest.mark.parametrize(("data", "below"), [("photos", None), ("photos.csv", Path("photos"))])
def test_images_that_are_named_from_here_are_found_from_anywhere(root, tmp_path, monkeypatch, data, below):
    features = open_features("photos", root / "cache")
    rows = np.arange(3)
    (root / "photos.csv").write_text("path\n" + "".join(f"{name}\n" for name in features.ids))
    monkeypatch.chdir(root)
    source = find_source(features, rows, data, below)
    monkeypatch.chdir(tmp_path)
    with Shown(features.path, rows, np.zeros(3), source.data, source.root).opened(torch.device("cpu"), 1) as examples:
        assert [Path(record.path) for record in examples._records] == [root / "photos" / features.ids[i] for i in rows]


def test_a_cluster_needs_ray_train(monkeypatch):
    monkeypatch.setattr(ray_train.importlib, "import_module", missing)
    with pytest.raises(EngineError, match=r"Ray Train is not installed.*offshelf\[ray-train\]"):
        launchers.group_of(*asked(engine=EngineSpec("ray")), Device())


def missing(name: str) -> None:
    raise ImportError(name)

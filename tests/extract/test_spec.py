import pytest

from extract.errors import OptionError
from extract.recipe import MAX_VIEWS
from extract.spec import COMPILERS, DECODERS, EngineSpec, ExtractSpec


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("views", [1, MAX_VIEWS])
def test_what_an_extraction_can_be_asked_for(decoder, compiler, views):
    spec = ExtractSpec("photos", decoder=decoder, compile=compiler, views=views, view_seed=views - 1)
    assert (spec.decoder, spec.compile, spec.views) == (decoder, compiler, views)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"decoder": "exakt"}, r"no decoder 'exakt' \(nearest: 'exact'\)\. Known: exact, scaled, gpu"),
        ({"decoder": "auto"}, "no decoder 'auto'"),
        ({"compile": "inducktor"}, "nearest: 'inductor'"),
        ({"compile": ""}, "no compile ''"),
        ({"precision": "fp8"}, "no precision 'fp8'"),
        ({"store": "int8"}, "no store 'int8'"),
        ({"views": 0}, f"0 views of an image.*Take --views 1 to {MAX_VIEWS}"),
        ({"views": MAX_VIEWS + 1}, f"{MAX_VIEWS + 1} views"),
        ({"view_seed": -1}, "-1 as the seed of views"),
        ({"workers": 0}, "0 workers"),
        ({"batch_size": 0}, "batches of 0"),
        ({"name": "../x"}, "is no name"),
        ({"part": (0, 8)}, "part 0 of 8.*Count parts from 1"),
        ({"part": (9, 8)}, "part 9 of 8"),
    ],
)
def test_what_no_extraction_can_be_asked_for_is_refused(wrong, said):
    with pytest.raises(OptionError, match=said):
        ExtractSpec("photos", **wrong)


@pytest.mark.parametrize(
    "changes", [{"address": "auto"}, {"actors": 2}, {"gpus": 0.5}, {"shard_timeout_s": 60}, {"relay": "s3://b/a"}]
)
def test_what_ray_alone_understands_is_refused_without_it(changes):
    assert EngineSpec("ray", **changes).name == "ray"
    with pytest.raises(OptionError, match=r"words of Ray.*--engine ray"):
        EngineSpec("local", **changes)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "rey"}, "nearest: 'ray'"),
        ({"actors": 0}, "0 actors"),
        ({"cpus": 0.0}, "0 cpus"),
        ({"gpus": -1.0}, "-1 gpus"),
        ({"shard_timeout_s": float("nan")}, "nan seconds"),
        *[({"relay": url}, "the relay is no URL") for url in ("/mnt/x", "bucket/x", "file://x", "s3://", "s3://a b")],
        ({"retries": 0}, "0 retries"),
    ],
)
def test_no_engine_of_nothing(wrong, said):
    with pytest.raises(OptionError, match=said):
        EngineSpec(**{"name": "ray", **wrong})

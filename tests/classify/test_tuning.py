import pytest

from classify.tuning import BN_MODES, STRATEGIES, TuneSpec
from extract.errors import OptionError


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"bn": "forzen"}, "nearest: 'frozen'"),
        ({"recipe": "bits"}, "nearest: 'bit'"),
        ({"optimizer": "adam"}, "nearest: 'adamw'"),
        ({"augment": "crops"}, "nearest: 'crop'"),
        ({"precision": "fp16"}, "no precision 'fp16'"),
        ({"compile": "tvm"}, "no compile 'tvm'"),
        ({"compile": "openvino"}, "no compile 'openvino'"),
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seeds": 0}, "seeds=0"),
        ({"processes": 0}, "processes=0"),
        ({"views": 65}, "views=65"),
        ({"folds": -1}, "folds=-1"),
        ({"mixup": 1.5}, "mixup=1.5"),
        ({"label_smoothing": -0.1}, "label_smoothing=-0.1"),
        ({"wise": 2.0}, "wise=2.0"),
        ({"layer_decay": 0.0}, "layer_decay=0.0"),
        ({"rates": (0.1, -1.0)}, "a learning rate of -1. Take one above 0 and below 1000"),
        ({"rates": (1e3,)}, "a learning rate of 1000. "),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"budget_s": 0.0}, "budget_s=0.0"),
        ({"checkpoint_s": 0.0}, "checkpoint_s=0.0"),
    ],
)
def test_what_means_nothing_is_refused_with_a_way_out(wrong, said):
    with pytest.raises(OptionError) as caught:
        TuneSpec(**wrong)
    assert said in str(caught.value)
    assert caught.value.remedy


def test_what_is_known_may_be_asked_for():
    assert [TuneSpec(bn=mode).bn for mode in BN_MODES] == list(BN_MODES)
    edges = TuneSpec(mixup=1.0, label_smoothing=0.0, wise="auto", layer_decay=1.0, rates=(999.0,), weight_decay=0.0)
    assert edges.wise == "auto"
    assert STRATEGIES == ("tail", "lp-ft", "full", "scratch")

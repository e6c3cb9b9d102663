import re

from classify.plots import Look, descent_plot

LOOKS = [Look(0, 1.1), Look(10, 0.6, 0.9), Look(20, 0.8, 0.3)]


def test_the_look_that_was_kept_stands_out():
    svg = descent_plot(LOOKS, 10, "loss")
    assert re.findall(r'<g class="(best|row)">', svg) == ["row", "best", "row"]
    assert "step 10: validation loss 0.6000, kept" in svg
    heights = [float(y) for y in re.findall(r'class="dot" cx="[^"]+" cy="([^"]+)"', svg)]
    assert heights[1] == max(heights)  # y grows downwards


def test_the_training_loss_is_drawn_where_it_is_known():
    assert "dashed" in descent_plot(LOOKS, 10, "loss").partition("</style>")[2]
    assert "dashed" not in descent_plot([Look(0, 1.0)], 0, "loss").partition("</style>")[2]


def test_one_look_without_any_loss_is_drawn_too():
    assert "kept" in descent_plot([Look(0, 0.0)], 0, "loss")

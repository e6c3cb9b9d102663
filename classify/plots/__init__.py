"""Pictures as SVG text, for the report and as files of their own; no colour is the only sign of anything."""

from classify.plots.curve import Curve, Size, curve_plot
from classify.plots.depth import Layer, depth_plot
from classify.plots.descent import Look, descent_plot
from classify.plots.dots import Point, dot_plot
from classify.plots.gain import gain_plot
from classify.plots.ladder import Rung, ladder_plot
from classify.plots.svg import STYLE, clip, printable
from classify.plots.trust import Bin, coverage_plot, reliability_plot

__all__ = [
    "STYLE",
    "Bin",
    "Curve",
    "Layer",
    "Look",
    "Point",
    "Rung",
    "Size",
    "clip",
    "coverage_plot",
    "curve_plot",
    "depth_plot",
    "descent_plot",
    "dot_plot",
    "gain_plot",
    "ladder_plot",
    "printable",
    "reliability_plot",
]

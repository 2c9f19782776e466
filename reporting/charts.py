"""The plots of a report once more, for plotly: they answer to the pointer. Each is {data, layout, least, webgl}.

`least`: CSS pixels of width below which the picture is the better one. page.js adds the colours of the page. Colours
are such as can be seen on white and on black.
"""

import math
from collections.abc import Sequence
from html import escape
from statistics import median
from typing import Any

from guard.trials import Trial
from reporting.plots import SCALE
from reporting.scale import Scale

BLUE, ORANGE, PINK, VIOLET, GREY = "#2f86d6", "#d9701a", "#d0267f", "#9a5fc0", "#8a94a0"
PARTS = (("train", ORANGE, "training"), ("alpha", VIOLET, "alphas' half"), ("val", BLUE, "validation"),
         ("test", GREY, "test"))
AXIS_WIDTH = 115  # CSS pixels that an axis of parallel coordinates needs
Chart = dict[str, Any]


def _chart(data: list[Chart], x: Chart, y: Chart, least: int = 0, **layout: Any) -> Chart:
    margin = {"l": 60, "r": 20, "t": 40, "b": 50}
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    return {"data": data, "least": least, "layout": {"margin": margin, "legend": legend, "xaxis": x, "yaxis": y,
                                                     "hovermode": "closest", **layout}}


def _title(text: str) -> Chart:
    return {"title": {"text": text}, "automargin": True}


def curves(records: Sequence[dict[str, Any]], quantity: str) -> Chart:
    """As plots.curves."""
    factor, unit = (100, ", %") if quantity == "accuracy" else (1, "")
    data = []
    for part, color, label in PARTS:
        found = [(record["epoch"], factor * record[key]) for record in records
                 if isinstance(record.get(key := f"{part}_{quantity}"), int | float) and math.isfinite(record[key])]
        if found:
            data.append(_line(*zip(*found, strict=True), label, color))
    return _chart(data, _title("epoch"), _title(quantity + unit), hovermode="x unified")


def decision(records: Sequence[dict[str, Any]]) -> Chart:
    """As plots.decision."""
    epochs = [record["epoch"] for record in records]
    skips = {**_line(epochs, [record["skips"] for record in records], "skip connections", ORANGE), "yaxis": "y2"}
    skips["line"]["shape"] = "hvh"
    return _chart([_line(epochs, [record["entropy"] for record in records], "entropy", BLUE), skips],
                  _title("epoch"), {**_title("entropy of the alphas"), "range": [0, 1.05]}, hovermode="x unified",
                  yaxis2={**_title("skip connections"), "overlaying": "y", "side": "right", "range": [-0.2, 8.2],
                          "showgrid": False})


def _line(x: Sequence[float], y: Sequence[float], name: str, color: str) -> Chart:
    return {"type": "scatter", "mode": "lines+markers" if len(x) < 30 else "lines", "x": list(x),
            "y": [round(value, 5) for value in y], "name": name, "line": {"color": color, "width": 2},
            "marker": {"size": 5}}


# ---- trials


def _dots(x: Sequence[Any], y: Sequence[float], name: str, color: str, text: Sequence[str], **marker: Any) -> Chart:
    return {"type": "scatter", "mode": "markers", "x": list(x), "y": [round(value, 4) for value in y], "name": name,
            "text": list(map(escape, text)), "hovertemplate": "%{text}<br>%{x}: %{y:.2f}%<extra></extra>",
            "marker": {"color": color, "size": 9, "opacity": 0.75, **marker}}


def accuracy_parameters(trials: Sequence[Trial], parameters: Sequence[int], front: Sequence[tuple[int, float]],
                        plain: int, baseline: tuple[float, float] | None) -> Chart:
    """As plots.accuracy_parameters; best first in `trials`."""
    names = [f"trial {trial.id}" for trial in trials]
    millions, percents = [count / 1e6 for count in parameters], [100 * trial.value for trial in trials]
    data = [_dots(millions, percents, "trial", BLUE, names),
            {**_line([point[0] / 1e6 for point in front], [100 * point[1] for point in front], "Pareto front", ORANGE),
             "hoverinfo": "skip", "mode": "lines"},
            _dots(millions[:1], percents[:1], "best", PINK, names[:1], symbol="star", size=15, opacity=1)]
    data[1]["line"]["shape"] = "hv"
    if baseline:
        data.append(_dots([baseline[0] / 1e6], [100 * baseline[1]], "plain MobileNet, same recipe", GREY,
                          ["plain MobileNet"], symbol="diamond"))
    line = {"type": "line", "x0": plain / 1e6, "x1": plain / 1e6, "y0": 0, "y1": 1, "yref": "paper",
            "line": {"color": GREY, "dash": "dash", "width": 1}, "showlegend": True,
            "name": "plain MobileNet's parameters"}
    return _chart(data, _title("parameters, millions"), _title("validation accuracy, %"), shapes=[line])


def effect(trials: Sequence[Trial], name: str) -> Chart:
    """As parameter_plots.effect."""
    values = [trial.parameters[name] for trial in trials]
    scale = Scale(values)
    dots = _dots([value if scale.numeric else escape(str(value)) for value in values],
                 [100 * trial.value for trial in trials], name, BLUE, [f"trial {trial.id}" for trial in trials])
    x = _title(escape(name)) | {"type": "log" if scale.log else "linear" if scale.numeric else "category"}
    if not scale.numeric:
        x |= {"categoryorder": "array", "categoryarray": [escape(str(option)) for option in scale.options]}
    bars = {"type": "scatter", "mode": "markers", "hovertemplate": "median: %{y:.2f}%<extra></extra>",
            "marker": {"symbol": "line-ew-open", "size": 30, "line": {"color": PINK, "width": 3}, "color": PINK},
            "x": [option if scale.numeric else escape(str(option)) for option in scale.options],
            "y": [median(100 * trial.value for trial in trials if trial.parameters[name] == option)
                  for option in scale.options]}
    data = [dots] if scale.continuous else [dots, bars]
    return _chart(data, x, _title("validation accuracy, %"), showlegend=False)


def parallel(trials: Sequence[Trial], names: Sequence[str]) -> Chart:
    """As parameter_plots.parallel_coordinates; a range is chosen by dragging along an axis."""
    axes = [_axis(name, Scale([trial.parameters[name] for trial in trials]), trials) for name in names]
    values = [round(100 * trial.value, 3) for trial in trials]
    colors = {"color": values, "showscale": False,
              "colorscale": [[i / (len(SCALE) - 1), color] for i, color in enumerate(SCALE)]}
    data = {"type": "parcoords", "line": colors, "labelangle": 0,
            "dimensions": [*axes, {"label": "accuracy, %", "values": values}]}
    return {"data": [data], "webgl": True, "least": AXIS_WIDTH * (len(names) + 1),
            "layout": {"margin": {"l": 90, "r": 50, "t": 60, "b": 25}}}


def _axis(name: str, scale: Scale, trials: Sequence[Trial]) -> Chart:
    ticks = scale.ticks()
    return {"label": escape(name), "values": [round(scale.place(trial.parameters[name]), 5) for trial in trials],
            "tickvals": [place for place, _ in ticks], "ticktext": [escape(label) for _, label in ticks],
            "range": list(scale.ends())}

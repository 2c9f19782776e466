"""Figures and where they come from, in words."""

import re
from pathlib import Path
from typing import Any

from models.darts.genotype_files import genotype_name

UNKNOWN = "not told"


def percent(value: Any) -> str:
    return f"{value:.2%}" if isinstance(value, int | float) else UNKNOWN


def millions(count: Any) -> str:
    if not isinstance(count, int | float):
        return UNKNOWN
    return f"{count / 1e6:.2f} million" if count >= 1e5 else f"{count:,.0f}"


def duration(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return UNKNOWN
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def value(item: Any) -> str:
    return f"{item:g}" if isinstance(item, float) else str(item)


def data_name(settings: dict[str, Any]) -> str:
    """Of the data set in the settings of a run, without the folders above it."""
    return Path(str(settings.get("data", "unknown data"))).name


def recipe(result: dict[str, Any]) -> str:
    """On what and how long, such as: digits, 1294 training and 143 validation images, 30 epochs, seed 0"""
    data, config = result["data"], result["config"]
    images = [f"{data[f'{part}_images']} {name}" for part, name in (("train", "training"), ("val", "validation"))
              if data.get(f"{part}_images")]
    parts = [Path(str(data.get("name", UNKNOWN))).name, " and ".join(images) + " images" if images else "",
             f"{config.get('epochs', UNKNOWN)} epochs", f"seed {config.get('seed', UNKNOWN)}"]
    return ", ".join(filter(None, parts))


def network(stage: str, result: dict[str, Any]) -> str:
    """Which network a run has trained."""
    config = result["config"]
    if named := config.get("genotype"):
        name = genotype_name(str(named))
        return f"{name if 'DARTS' in name else f'DARTS {name}'}, {config.get('layers')} cells"
    if config.get("baseline"):
        return "plain MobileNet"
    if result.get("architecture"):
        return "MobileNet with the choices of classic NAS"
    return str(config.get("model") or stage)


def slug(text: str) -> str:
    return re.sub(r"[^\w-]+", "-", text).strip("-")

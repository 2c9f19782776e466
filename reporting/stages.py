"""The blocks of single runs: DARTS searches and trainings."""

from typing import Any

from artifacts.figures import UNKNOWN, duration, percent, span
from models.darts.genotype import EDGES, OPERATIONS, Genotype
from reporting import charts, plots
from reporting.blocks import Block, Cell, Details, Gallery, Heading, Heat, Picture, Table, Text
from reporting.darts_drawing import alphas_figure, cells_figure, fits
from reporting.findings import Run, tests
from reporting.words import by_validation, data_name, decided, network, recipe, slug, val_images

INPUTS = ("the cell before the last", "the cell before")  # sources 0 and 1 of a cell


# ---- DARTS search


def search_blocks(run: Run, runs: list[Run]) -> list[Block]:
    """One search, or several seeds of one: then the pictures are of the chosen seed."""
    result, shown = run.result or {}, run
    blocks: list[Block] = [Heading(3, f"DARTS search: {run.name}")]
    if result.get("seeds"):
        chosen = [one for one in runs if one.name.startswith(f"{run.name}/seed")
                  and (one.result or {}).get("genotype") == result.get("genotype")]
        shown = chosen[0] if chosen else run
        rows = [[str(seed["seed"]), percent(seed["value"], val_images(result))] for seed in result["seeds"]]
        blocks.append(Table(["seed", result.get("metric", "value")], rows, (0, 1)))
    told = result.get("genotype") or (shown.metrics[-1].get("genotype") if shown.metrics else None)
    if result.get("diverged"):
        blocks.append(Text("This search diverged: its loss is not finite.", "warning"))
    elif run.result:
        value = percent(result.get("value"), val_images(result))
        blocks += [Text(f"{value} {result.get('metric', '')}{by_validation(result)}. {_search_recipe(run)}"),
                   *_supernet(result)]
    else:
        blocks.append(Text(f"Not finished: {run.epochs} of {run.config.get('epochs', '?')} epochs, "
                           f"{data_name(run.config)}, seed {run.config.get('seed', '?')}.", "warning"))
    if not told:
        return [*blocks, Text("No epoch has ended yet.", "note")]
    genotype, base = Genotype.from_json(told), slug(run.name)
    history = [record for record in shown.metrics if "strengths" in record]
    if history:
        blocks.append(Text(f"After {len(history)} epochs the alphas, by which the search weighs operations, are "
                           f"{decided(history[-1]['entropy'])} (entropy {history[-1]['entropy']:.3f} of at most 1)."))
    when = "found" if run.result else "as they are now"
    blocks.append(_cells(genotype, base, f"The normal and the reduction cell {when}."))
    return [*blocks, Details(f"Details of {run.name}: alphas and curves over the epochs",
                             _history(shown, history, genotype, base))] if history else blocks


def _supernet(result: dict[str, Any]) -> list[Block]:
    """What its accuracy is of."""
    if "supernet" not in str(result.get("metric")):
        return []
    return [Text("That is the accuracy of the supernet, the mixture of all operations on every edge with which the "
                 "search works, not of the network found: that one is trained from scratch afterwards, and usually "
                 "does better.", "note")]


def _history(run: Run, history: list[dict[str, Any]], genotype: Genotype, base: str) -> list[Block]:
    about = f"{run.name}, {len(history)} epochs, seed {run.config.get('seed', UNKNOWN)}"
    strengths = [record["strengths"] for record in history]
    alphas = Picture(
        f"{base}-alphas.svg", plots.svg(lambda: alphas_figure(strengths, genotype), plain=True),
        "The weight of each operation on each edge over the epochs", f"Alphas after softmax over time: {about}.", 900,
        narrow=_weights(strengths[-1])) if fits(strengths) else Text(
            "The alphas are not drawn: they weigh another number of operations than there are now.", "note")
    return [alphas, Gallery([*_curves(run, base), Picture(
        f"{base}-decision.svg", plots.svg(lambda: plots.decision(history)),
        "Entropy of the alphas and number of skip connections over the epochs",
        f"{about}. Entropy 1 is undecided; many skip connections are the sign of a collapsed search.",
        chart=charts.decision(history))])]


def _weights(strengths: dict[str, list[list[float]]]) -> Heat:
    """In percent, after the last epoch, for pages on which the curves would be too small."""
    highest = max(max(row) for rows in strengths.values() for row in rows)
    return Heat("cell and edge", list(OPERATIONS), [
        (f"{kind}, {source - 2} to {node}",
         [Cell(f"{100 * weight:.0f}", (weight / highest) ** 2) for weight in strengths[kind][edge]])
        for kind in ("normal", "reduction") for edge, (node, source) in enumerate(EDGES)],
        "Weight of each operation on each edge, in %, after the last epoch; -2 and -1 are the cells before.")


def _search_recipe(run: Run) -> str:
    config = run.config
    order = (f"partial channels 1/{config['partial_channels']}" if config.get("partial_channels", 1) > 1
             else f"order {config.get('order', UNKNOWN)}")
    return (f"Data and recipe: {recipe(run.result)}, {order}, {config.get('layers', UNKNOWN)} cells, "
            f"{config.get('channels', UNKNOWN)} channels; {duration(run.result.get('wall_seconds'))}.")


# ---- trainings


def training_blocks(run: Run, runs: list[Run]) -> list[Block]:
    """Figures and curves of one network's training; its cells, if they are not those of a search in `runs`."""
    blocks: list[Block] = [Heading(3, f"Training: {run.name}")]
    if not run.result:
        blocks.append(Text(f"Not finished: {run.epochs} of {run.config.get('epochs', '?')} epochs, "
                           f"{data_name(run.config)}, seed {run.config.get('seed', '?')}.", "warning"))
    else:
        blocks += [Text(f"{network(run.stage, run.result)}. {recipe(run.result)}; "
                        f"{duration(run.result.get('wall_seconds'))}."), _figures(run.result)]
        if run.result.get("diverged"):
            blocks.append(Text("This training diverged: its loss is not finite.", "warning"))
    if pictures := _curves(run, slug(run.name)):
        blocks.append(Gallery(pictures))
    cells = (run.result or {}).get("architecture") or {}
    if "normal" in cells:
        genotype = Genotype(cells["normal"], cells["reduction"])
        if any((one.result or {}).get("genotype") == genotype.to_json() for one in runs):
            return blocks
        blocks.append(_cells(genotype, slug(run.name), f"The cells of this network, {network(run.stage, run.result)}."))
    return blocks


def _cells(genotype: Genotype, base: str, caption: str) -> Picture:
    rows = [[kind if not (node or place) else "", str(node), INPUTS[edge.source] if edge.source < 2
             else f"node {edge.source - 2}", edge.operation]
            for kind, cell in (("normal", genotype.normal), ("reduction", genotype.reduction))
            for node, pair in enumerate(cell) for place, edge in enumerate(pair)]
    return Picture(f"{base}-cells.svg", plots.svg(lambda: cells_figure(genotype), plain=True),
                   "The normal and the reduction cell as graphs", caption, 900,
                   narrow=Table(["cell", "node", "is fed by", "through"], rows))


def _figures(result: dict[str, Any]) -> Table:
    rows = []
    for name, key in (("last epoch", "last"), ("epoch that was best on validation", "best"), ("final test", "test")):
        record = result.get(key)
        if isinstance(record, dict):
            split = "test" if key == "test" else "validation" if "val_accuracy" in record else "training"
            of = {"test": "", "validation": "val_", "training": "train_"}[split]
            accuracy, loss = (record.get(of + what) for what in ("accuracy", "loss"))
            count = {"test": record.get("images"), "validation": val_images(result)}.get(split)
            rows.append([name, str(record.get("epoch", "the last" if key == "test" else "")), split,
                         percent(accuracy, count),
                         f"{span(accuracy * count, count)}%" if count and accuracy is not None else "",
                         f"{loss:.4f}" if isinstance(loss, int | float) else UNKNOWN])
    return Table(["figures", "epoch", "pictures", "accuracy", "95% interval", "loss"], rows, (1, 3, 4, 5))


def _curves(run: Run, base: str) -> list[Picture]:
    """Accuracy and loss of training and validation over the epochs, as far as they were recorded."""
    about = f"{run.name}, {data_name(run.config)}, seed {run.config.get('seed', UNKNOWN)}"
    return [Picture(f"{base}-{quantity}.svg", plots.svg(lambda quantity=quantity: plots.curves(run.metrics, quantity)),
                    f"{quantity} over the epochs", f"{quantity.capitalize()}: {about}.",
                    chart=charts.curves(run.metrics, quantity))
            for quantity in ("accuracy", "loss")
            if any(f"{part}_{quantity}" in record for record in run.metrics for part in ("train", "val"))]


def is_search(run: Run) -> bool:
    return run.stage == "darts_search"


def is_seed_of_search(run: Run, runs: list[Run]) -> bool:
    parent = run.name.rpartition("/")[0]
    return is_search(run) and any(one.name == parent for one in runs)


def is_final(run: Run) -> bool:
    """A training that ends with the test set, or will."""
    return tests(run) is not None or run.stage == "retrain"

"""An NNI trial that takes no time and can go wrong in every way; which one its arguments say.

Trials are chosen by NNI_TRIAL_SEQ_ID (0, 1, ...). Each writes what it truly ran to toy.json, apart from config.json,
which real trials write too: the tests compare the results with toy.json.
"""

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path

import nni


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jitter", type=float, default=0.0, help="sleep up to so long before the first call")
    parser.add_argument("--crash-before", type=int, nargs="*", default=[], metavar="SEQ")
    parser.add_argument("--crash-after", type=int, nargs="*", default=[], metavar="SEQ")
    parser.add_argument("--killed", type=int, nargs="*", default=[], metavar="SEQ", help="as if out of memory")
    parser.add_argument("--silent", type=int, nargs="*", default=[], metavar="SEQ", help="report nothing")
    parser.add_argument("--nan", type=int, nargs="*", default=[], metavar="SEQ")
    parser.add_argument("--twice", type=int, nargs="*", default=[], metavar="SEQ", help="two final results")
    parser.add_argument("--lie", type=int, nargs="*", default=[], metavar="SEQ", help="run another x than it was given")
    parser.add_argument("--diverge", type=int, nargs="*", default=[], metavar="SEQ")
    parser.add_argument("--poor", type=int, nargs="*", default=[], metavar="SEQ", help="report -1, then wait")
    parser.add_argument("--sleep", type=float, default=0.0, help="seconds between two intermediate results")
    parser.add_argument("--plain", action="store_true", help="report a float, write no files")
    arguments = parser.parse_args()
    number = int(os.environ["NNI_TRIAL_SEQ_ID"])

    time.sleep(random.random() * arguments.jitter)
    if number in arguments.crash_before:
        raise RuntimeError("crashed before the first call")
    parameters = nni.get_next_parameter()
    folder = Path(os.environ["NNI_OUTPUT_DIR"])
    (folder / "toy.json").write_text(json.dumps(parameters))
    if number in arguments.lie:
        parameters["x"] += 0.5
    if not arguments.plain:
        (folder / "config.json").write_text(json.dumps({**parameters, "seed": 0}))
    if number in arguments.crash_after:
        raise RuntimeError("crashed after the first call")
    if number in arguments.killed:
        os.kill(os.getpid(), 9)
    if number in arguments.silent:
        sys.exit(0)

    if number in arguments.poor:
        nni.report_intermediate_result(-1.0)
        time.sleep(30)

    worth = parameters.get("x", number)  # of a space without x: the trial's number
    value = float("nan") if number in arguments.nan else 0.0 if number in arguments.diverge else worth
    for step in range(3):
        nni.report_intermediate_result(value * (step + 1) / 3)
        time.sleep(arguments.sleep)
    if not arguments.plain:
        (folder / "result.json").write_text(json.dumps({"value": str(value), "diverged": number in arguments.diverge}))
    echo = {f"run.{name}": item for name, item in parameters.items()}
    nni.report_final_result(value if arguments.plain else {"default": value, **echo})
    if number in arguments.twice:
        time.sleep(0.5)
        nni.report_final_result(value)
        time.sleep(0.5)


if __name__ == "__main__":
    main()

"""A trial that counts how often it was begun and each of its epochs was run, in the files of those names."""

import argparse
import os
import time


def run(argv, parameters, reporter):
    parser = argparse.ArgumentParser()
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--fail", action="store_true")
    arguments = parser.parse_args(argv)
    done = reporter.folder() / "epochs"
    done.touch()
    with open(reporter.folder() / "begun", "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    if arguments.fail:
        raise ValueError("this trial fails")
    for epoch in range(arguments.epochs):
        if epoch >= len(done.read_text()):
            time.sleep(arguments.sleep)
            with open(done, "a", encoding="utf-8") as file:
                file.write("x")
        reporter.epoch(parameters["x"] * (epoch + 1))
    reporter.final(parameters["x"], {}, parameters)
    return parameters["x"]

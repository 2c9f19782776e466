"""Experiments on one machine or many by Ray Tune. Ray is imported by trial.py and search.py, and only when it is used."""

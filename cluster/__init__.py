"""Experiments on one machine or many by Ray Tune. Ray is imported only where it is used."""

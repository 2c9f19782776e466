"""The stages of pipeline.py, what a budget means, and the processes that run them."""

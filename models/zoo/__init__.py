"""The networks of the search space, one family a file."""

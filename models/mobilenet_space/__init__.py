"""MobileNet as a search space: its choices, its networks and their costs, and the same declared for NNI."""

"""DARTS: cells, operations, genotypes, the supernet and its fast form, the discrete network."""

"""Fits by the graph of what depends on what: in processes here, on SLURM or on Ray."""

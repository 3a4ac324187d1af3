"""Sweeps: what delaying the negative prompt gains and costs, measured over many pictures."""

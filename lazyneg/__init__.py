"""Delay the negative prompt of Stable Diffusion until there is something to remove."""

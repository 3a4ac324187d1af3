"""Makes the host look as it was before its callbacks were handed the denoiser."""

from modules import options, script_callbacks


class CFGDenoiserParams:
    def __init__(self, x, image_cond, sigma, sampling_step, total_sampling_steps, cond, uncond):
        raise NotImplementedError


script_callbacks.CFGDenoiserParams = CFGDenoiserParams
del options.OptionHTML  # the extension imports it; it was not there either

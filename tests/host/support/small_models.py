"""Makes small checkpoints loadable on A1111, which takes these sizes from the code."""

from pathlib import Path

import open_clip
import torch
from modules.models.sd3 import sd3_cond, sd3_impls

open_clip.add_model_config(Path(__file__).parent / "open_clip")

SMALL_CLIP = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
}
sd3_cond.CLIPL_CONFIG.update(SMALL_CLIP)
sd3_cond.CLIPG_CONFIG.update(SMALL_CLIP)
sd3_impls.VAEEncoder.__init__.__defaults__ = (32, (1, 1, 1, 1), 1, 3, 16, torch.float32, None)
sd3_impls.VAEDecoder.__init__.__defaults__ = (32, 3, (1, 1, 1, 1), 1, 256, 16, torch.float32, None)

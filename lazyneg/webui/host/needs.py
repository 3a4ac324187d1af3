"""What the extension takes from a host: the one list of it, and whether a host has it.

Nothing of the host is imported at the top of this file, so that it can be read on any.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping

Names = Mapping[str, tuple[str, ...]]
"""Names of modules, or of objects, with those that are taken from them."""

NAMES: Names = {
    "gradio": ("Checkbox", "HTML", "Radio", "Row", "Slider", "Textbox", "Warning"),
    "modules.errors": ("report",),
    "modules.extra_networks": ("ExtraNetwork", "parse_prompt", "register_extra_network"),
    "modules.processing": ("StableDiffusionProcessingImg2Img",),
    "modules.prompt_parser": (
        "SdConditioning",
        "get_learned_conditioning",
        "reconstruct_cond_batch",
    ),
    "modules.script_callbacks": ("add_callback", "callback_map"),
    "modules.scripts": ("AlwaysVisible", "Script", "scripts_data"),
    "modules.sd_samplers": ("find_sampler_config",),
    "modules.sd_samplers_cfg_denoiser": ("CFGDenoiser",),
    "modules.sd_samplers_common": ("setup_img2img_steps",),
    "modules.shared": ("opts", "cmd_opts"),
    "modules.ui_components": ("InputAccordion",),
}
"""Without one of these the extension stays off."""

SETTINGS_PAGE: Names = {"modules.options": ("OptionHTML", "OptionInfo")}
COMPARISON: Names = {
    "modules.images": ("GridAnnotation", "draw_grid_annotations", "image_grid", "save_image"),
    "modules.processing": ("Processed", "create_infotext", "fix_seed", "process_images"),
    "modules.shared": ("prompt_styles", "state"),
}
"""Without one of these only that part is off."""

LOCALS: Names = {
    "all": ("denoiser_params",),
    "A1111": ("conds_list", "is_edit_model", "skip_uncond"),
    "Forge": ("cond_scale", "uncond_"),
}
"""Local variables of the functions that make the guidance, on all hosts and on some. Without one
of these only the settings that take another conditioning are off."""

ATTRIBUTES: Names = {
    "p": (
        "all_negative_prompts",
        "all_prompts",
        "all_seeds",
        "all_subseeds",
        "batch_size",
        "cached_uc",
        "comment",
        "do_not_save_grid",
        "extra_generation_params",
        "extra_network_data",
        "firstpass_steps",
        "get_conds",
        "get_conds_with_caching",
        "height",
        "n_iter",
        "negative_prompt",
        "outpath_grids",
        "sampler_name",
        "steps",
        "styles",
        "width",
    ),
    "hires": (
        "all_hr_negative_prompts",
        "all_hr_prompts",
        "hr_extra_network_data",
        "hr_negative_prompt",
        "hr_sampler_name",
        "hr_second_pass_steps",
        "hr_upscale_to_x",
        "hr_upscale_to_y",
        "is_hr_pass",
    ),
    "params": ("denoiser", "image_cond", "sigma", "text_cond", "text_uncond", "x"),
    "denoiser": ("inner_model", "p", "sampler", "step", "steps", "total_steps"),
    "sampler": ("func", "get_sigmas", "launch_sampling"),
    "shared": ("sd_model",),
    "sd_model": ("sd_checkpoint_info",),
    "opts": ("add_option", "data", "enable_pnginfo", "grid_format", "grid_save"),
    "cmd_opts": ("ui_config_file",),
}
"""What objects that a host hands over, or keeps, have while a picture is made: ``p`` in every
pass, ``hires`` what ``p`` has besides in a hires pass. (Asking for a model would load one: whether
these are there can only be told in a run.)"""

OPTIONAL: Names = {
    "p": ("distilled_cfg_scale", "hr_distilled_cfg"),
    "notes": ("comments", "extra_generation_params", "last_extra_generation_params"),
    "denoiser": ("pad_cond_uncond", "pad_cond_uncond_v0"),
    "opts": ("batch_cond_uncond",),
    "sd_model": ("is_sd1", "is_sd2", "is_sdxl", "model"),
    "modules.sd_hijack": ("model_hijack",),
    "modules.sd_samplers_cfg_denoiser": ("catenate_conds",),
    "backend.args": ("dynamic_args",),
    "backend.sampling.condition": ("compile_conditions",),
    "backend.sampling.sampling_function": ("calc_cond_uncond_batch", "sampling_function_inner"),
    "backend.text_processing": ("classic_engine",),
    "ldm_patched.modules.samplers": ("calc_cond_uncond_batch",),
    "modules_forge.forge_sampler": ("cond_from_a1111_to_patched_ldm",),
}
"""What only some hosts have, and is done without elsewhere."""


def missing(names: Names) -> Iterator[str]:
    """The names that this host lacks, or whose modules cannot be imported."""
    for module, attributes in names.items():
        try:
            found = importlib.import_module(module)
        except ImportError:
            yield module
            continue
        yield from (f"{module}.{name}" for name in attributes if not hasattr(found, name))


def shortcoming() -> str | None:
    """Why this host cannot be served; ``None`` where it can."""
    try:
        shared = importlib.import_module("modules.shared")
        callbacks = importlib.import_module("modules.script_callbacks")
        given = inspect.signature(callbacks.CFGDenoiserParams).parameters
        scripts = importlib.import_module("modules.scripts")
        announces_passes = hasattr(scripts.Script, "process_before_every_sampling")
    except (AttributeError, ImportError) as error:
        return f"this WebUI is not one that it knows ({error})"
    if "denoiser" not in given and getattr(shared, "native", False):
        return (
            "this WebUI runs diffusers' pipelines and never calls the callbacks of a denoiser. "
            "For diffusers there is lazyneg.apply(pipe): see the README"
        )
    if "denoiser" not in given or not announces_passes:
        return "this WebUI is too old; 1.10.0 or newer is needed"
    if lacking := list(missing(NAMES)):
        return f"this WebUI has no {', '.join(lacking)}"
    return None

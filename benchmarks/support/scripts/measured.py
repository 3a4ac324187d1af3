"""A helper extension that only the benchmarks load: an empty denoiser, and what a picture costs.

It takes the place of the denoiser's network with one that gives zeros, so that what is left is what
goes on around it, and tells with each request, as ``Measured`` in ``extra_generation_params``, what
the making of its pictures took. Its folder has it loaded ahead of the extension that is measured,
so that it also sees that one load.

The hooks of that extension may for one request be

- ``detached``: do nothing, so that it is as if the extension were not there, in the same process;
- ``timed``: tell how much CPU time is spent in them;
- ``traced``: tell how many Python functions of the extension are called.
"""

import functools
import importlib.util
import os
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from modules import processing, script_callbacks, script_loading, scripts, shared
from modules.sd_samplers_cfg_denoiser import CFGDenoiser

if importlib.util.find_spec("modules_forge") is None:
    tests = Path(scripts.basedir()).resolve().parents[1] / "tests"
    sys.path.append(str(tests / "host" / "support"))
    import small_models  # noqa: F401

TITLE = "Lazy Negative"
HOOKS = (
    "process",
    "process_batch",
    "process_before_every_sampling",
    "postprocess_batch",
    "postprocess",
)


class Request:
    """What is counted in a request; times are CPU times in seconds."""

    def __init__(self):
        self.rows = []
        self.texts = []
        self.in_calls = 0.0
        self.in_hooks = 0.0
        self.traced = 0


class Now:
    """The request under way, and what shall be done to the extension's hooks in the next."""

    request = Request()
    hooks = None


def replace(owner, name):
    """Puts the decorated function in the place of one of the host's, which it is given first."""
    own = getattr(owner, name)

    def decorator(function):
        @functools.wraps(own)
        def wrapper(self, *args, **kwargs):
            return function(own, self, *args, **kwargs)

        setattr(owner, name, wrapper)

    return decorator


start = {}
"""What the extension did in the host's start: CPU times in seconds, and the modules it loaded."""


def timed_start(part, hook):
    def timer(*args, **kwargs):
        begin = time.thread_time()
        try:
            return hook(*args, **kwargs)
        finally:
            start[part] = start.get(part, 0.0) + time.thread_time() - begin

    return timer


@replace(script_loading, "load_module")
def load_module(own, path):
    if os.path.basename(path) != "lazyneg.py":
        return own(path)
    before = set(sys.modules)
    module = timed_start("loading the script", own)(path)
    start["modules"] = sorted(set(sys.modules) - before)
    for kind in ("before_ui", "ui_settings"):
        for one in own_callbacks(kind):
            one.callback = timed_start("callbacks before the page", one.callback)
    return module


def own_callbacks(kind):
    callbacks = script_callbacks.callback_map[f"callbacks_{kind}"]
    return [one for one in callbacks if one.callback.__module__.startswith("lazyneg.")]


@replace(scripts.ScriptRunner, "create_script_ui")
def create_script_ui(own, self, script):
    if script.title() != TITLE:
        return own(self, script)
    return timed_start("controls", own)(self, script)


@replace(CFGDenoiser, "forward")
def forward(own, self, *args, **kwargs):
    begin = time.thread_time()
    denoised = own(self, *args, **kwargs)
    Now.request.in_calls += time.thread_time() - begin
    return denoised


@replace(processing, "process_images_inner")
def process_images_inner(own, p):
    with ExitStack() as stack:
        use_empty_denoiser(shared.sd_model)
        count_texts(shared.sd_model)
        now = Now.request = Request()
        hooks, Now.hooks = Now.hooks, None
        if hooks == "traced":
            sys.setprofile(trace)
            stack.callback(sys.setprofile, None)
        elif hooks is not None:
            stack.enter_context(hooked(p, {"detached": detached, "timed": timed}[hooks]))
        begin = time.thread_time(), time.perf_counter()
        processed = own(p)
        end = time.thread_time(), time.perf_counter()
    processed.extra_generation_params["Measured"] = {
        "cpu": end[0] - begin[0],
        "wall": end[1] - begin[1],
        "in calls": now.in_calls,
        "in hooks": now.in_hooks,
        "denoiser calls": len(now.rows),
        "denoiser rows": sum(now.rows),
        "text encoder calls": len(now.texts),
        "texts": sum(now.texts),
        "our functions": now.traced,
    }
    return processed


def use_empty_denoiser(model):
    model = model.forge_objects.unet.model if hasattr(model, "forge_objects") else model.model

    def zeros(x, *args, **kwargs):
        Now.request.rows.append(len(x))
        return torch.zeros_like(x)

    model.diffusion_model.forward = zeros


def count_texts(model):
    encode = type(model).get_learned_conditioning

    def counted(batch):
        Now.request.texts.append(len(batch))
        return encode(model, batch)

    model.get_learned_conditioning = counted


@contextmanager
def hooked(p, replaced):
    """Replaces the hooks of the extension, by what ``replaced`` makes of each."""
    hooks = [
        (script, name)
        for script in p.scripts.alwayson_scripts
        if script.title() == TITLE
        for name in HOOKS
    ]
    for kind in ("cfg_denoiser", "cfg_denoised"):
        hooks += [(one, "callback") for one in own_callbacks(kind)]
    before = [getattr(owner, name) for owner, name in hooks]
    for (owner, name), hook in zip(hooks, before):
        setattr(owner, name, replaced(hook))
    try:
        yield
    finally:
        for (owner, name), hook in zip(hooks, before):
            setattr(owner, name, hook)


def detached(hook):
    def nothing(*args, **kwargs):
        pass

    return nothing


def timed(hook):
    def timer(*args, **kwargs):
        begin = time.thread_time()
        hook(*args, **kwargs)
        Now.request.in_hooks += time.thread_time() - begin

    return timer


def trace(frame, event, argument):
    if event == "call" and f"{os.sep}lazyneg{os.sep}" in frame.f_code.co_filename:
        Now.request.traced += 1


def hook_next(how: str):
    Now.hooks = how


def add_routes(demo, app):
    app.add_api_route("/measured/start", lambda: {"pid": os.getpid(), **start}, methods=["GET"])
    app.add_api_route("/measured/next", hook_next, methods=["POST"])


script_callbacks.on_app_started(add_routes)

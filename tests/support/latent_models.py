"""Small models of every form of latents, weights moved so that all of them matter, and batches for them."""

import torch

from geco_ext.models import NVPVAE, ConvDraw

SMALL_NVP = {"latent": 3, "hidden": 8, "channels": 2}
SMALL_DRAW = {"steps": 2, "hidden": 4, "latent": 1}
FORMS = {
    "flow": lambda: NVPVAE((1, 8, 8), flows=2, **SMALL_NVP),
    "Gaussian": lambda: NVPVAE((3, 8, 8), flows=0, **SMALL_NVP),
    "steps": lambda: ConvDraw((1, 8, 8), **SMALL_DRAW),
    "one step": lambda: ConvDraw((1, 8, 8), **{**SMALL_DRAW, "steps": 1}),
    "conditional, per step, rectangular": lambda: ConvDraw(
        (1, 8, 12), context_shape=(2, 8, 12), shared=False, **SMALL_DRAW
    ),
}


def made(form):
    """The model, in eval mode, and what its forward takes: x, and the context if any."""
    torch.manual_seed(1)
    model = FORMS[form]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model, batch_of(model, 3)


def batch_of(model, size):
    shapes = [model.image_shape] if model.context_shape is None else [model.image_shape, model.context_shape]
    return [torch.rand(size, *shape) for shape in shapes]

"""What a variational auto-encoder returns."""

from typing import NamedTuple, TypeVar

from torch import Tensor
from torch.utils import _pytree

Output = TypeVar("Output", bound=type)


def exportable(output: Output) -> Output:
    """Have `torch.export.save` take programs that return this NamedTuple: it keeps the name, and asks for one."""
    register = getattr(_pytree, "_register_namedtuple", None)  # not public, though PyTorch's error tells to call it
    if register is not None:
        register(output, serialized_type_name=f"geco_ext.models.{output.__name__}")
    return output


@exportable
class VariationalOutput(NamedTuple):
    """One pass of a variational auto-encoder over a batch; a criterion needs the first two beside the target.

    Attributes:
        x_hat: reconstruction g(z) at one posterior sample z, [B, C, H, W] in [0, 1].
        kl: KL[q(z|x); pi(z)] of each example, [B], in nats.
        z: the posterior sample, [B, D]; the model's ``decode`` makes ``x_hat`` of it.
    """

    x_hat: Tensor
    kl: Tensor
    z: Tensor

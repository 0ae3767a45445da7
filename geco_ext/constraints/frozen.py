"""Networks inside constraints: measuring instruments, not parts of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from geco_ext.constraints.base import Constraint
from geco_ext.schedule import Kappa


class NetworkConstraint(Constraint):
    """A constraint that looks at the images through a network.

    The network is frozen and kept in eval mode whatever ``train()`` says. It is not a submodule: its weights are in
    no ``state_dict`` and no optimiser sees them. ``to()`` and its relatives move it.
    """

    def __init__(self, kappa: Kappa, network: Callable[..., Any], argument: str, name: str | None) -> None:
        super().__init__(kappa, name)
        if not callable(network):
            raise ValueError(f"{argument}: got {type(network).__name__}, expected a module or another callable")
        if isinstance(network, nn.Module):
            network.requires_grad_(False).eval()
        self._network = [network]  # in a list, so that nn.Module does not take it for a submodule

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> NetworkConstraint:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if isinstance(self._network[0], nn.Module):
            self._network[0]._apply(fn)
        return self

    def _look(self, images: Tensor) -> Any:
        network = self._network[0]
        if isinstance(network, nn.Module) and any(module.training for module in network.modules()):
            network.eval()  # the user's own handle on the network, or on a part, may have been put into training mode
        return network(images)

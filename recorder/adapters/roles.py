"""Parameter groups by the role of the network that uses them."""

from __future__ import annotations

from torch import nn

from recorder.capture.parameters import Parts


def actor_and_critic(actor: nn.Module, critic: nn.Module | None) -> dict[str, Parts]:
    """Return the parameters used only by the actor, only by the critic, and by both (``shared``)."""
    acting = {id(parameter): parameter for parameter in actor.parameters()}
    judging = {} if critic is None else {id(parameter): parameter for parameter in critic.parameters()}
    both = acting.keys() & judging.keys()
    return {
        "actor": [parameter for key, parameter in acting.items() if key not in both],
        "critic": [parameter for key, parameter in judging.items() if key not in both],
        "shared": [acting[key] for key in both],
    }

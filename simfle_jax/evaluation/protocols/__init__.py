"""The protocols, one file each: a file NAME.py here that ends in `PROTOCOL = its class` is `config.protocol = NAME`."""

import importlib

from simfle_jax.errors import UserError
from simfle_jax.evaluation.protocols.base import Protocol
from simfle_jax.evaluation.settings import Probe


def find_protocol(probe: Probe) -> Protocol:
    """The protocol that the settings name.

    Raises:
        UserError: other settings do not go with it.
    """
    protocol: Protocol = importlib.import_module(f"simfle_jax.evaluation.protocols.{probe.protocol}").PROTOCOL(probe)
    if protocol.needs_images and probe.features:
        raise UserError(
            f"config: protocol = {probe.protocol!r} needs the images, and features hold none: "
            "give --config.protocol=cached, logistic, knn or lowlabel"
        )
    if probe.data.votes and not protocol.takes_votes:
        raise UserError(
            f"config: protocol = {probe.protocol!r} learns one class of an image, and data.votes are several: "
            "give --config.protocol=linear, cached or logistic"
        )
    if not protocol.has_epochs:
        for name, usual in (("select_on", "val"), ("balance", "none")):
            if getattr(probe, name) != usual:
                raise UserError(f"config: {name} is for protocols with epochs, protocol = {probe.protocol!r} has none")
    return protocol

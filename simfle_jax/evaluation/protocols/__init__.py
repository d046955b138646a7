"""The protocols, one file each: a file NAME.py here that ends in `PROTOCOL = its class` is `config.protocol = NAME`."""

import dataclasses
import importlib

from simfle_jax.errors import UserError
from simfle_jax.evaluation.protocols.base import Protocol, TargetProtocol
from simfle_jax.evaluation.settings import PROTOCOLS, Probe


def find_protocol(probe: Probe) -> Protocol:
    """The protocol that the settings name.

    Raises:
        UserError: other settings do not go with it.
    """
    protocol = _made(probe)
    if protocol.needs_images and probe.features:
        raise UserError(
            f"config: protocol = {probe.protocol!r} needs the images, and features hold none: "
            "give --config.protocol=cached, logistic, knn or lowlabel (on logistic)"
        )
    if probe.data.votes and not protocol.takes_votes:
        raise UserError(
            f"config: protocol = {probe.protocol!r} learns one class of an image, and data.votes are several: "
            "give --config.protocol=linear, cached or logistic"
        )
    if not protocol.has_epochs:
        for name, usual in (("select_on", "val"), ("balance", "none")):
            if getattr(probe, name) != usual:
                raise UserError(
                    f"config: {name} is for protocol = 'linear' and 'cached', not {probe.protocol!r}: leave it out"
                )
    return protocol


def trained_protocol(probe: Probe, recorded: str) -> Protocol:
    """The protocol of a probe that is evaluated: the one that its folder recorded; '' for none: what the settings name.

    Raises:
        UserError: it needs images, and the settings give features.
    """
    if recorded not in ("", *PROTOCOLS):  # one that somebody had added; its predictor is still there
        return Protocol(probe)
    protocol = _made(dataclasses.replace(probe, protocol=recorded or probe.protocol))
    if isinstance(protocol, TargetProtocol) and probe.features:
        raise UserError(
            f"a probe of protocol {protocol.probe.protocol!r} needs the images, and features hold none: give "
            "--config.encoder"
        )
    return protocol


def _made(probe: Probe) -> Protocol:
    protocol: Protocol = importlib.import_module(f"simfle_jax.evaluation.protocols.{probe.protocol}").PROTOCOL(probe)
    return protocol

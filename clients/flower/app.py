"""Flower's ClientApp: passes a message to the process that hosts this node's peer, and replies.

Flower's process lives for one message (deployment), or serves any node's next message (simulation),
so the peer does not live in it. In simulation the peer's process is a named Ray actor; in
deployment it is the site's own `dogo-fed peer`, found by `peer-address` in the node's
configuration. No handler waits for training.
"""

from __future__ import annotations

import logging

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.flower.envelope import (
    ABOUT,
    IS_SITE,
    NUM_PARTITIONS,
    PARTITION_ID,
    PEER,
    answer_to,
    request_in,
)
from clients.flower.site.address import ADDRESS_KEY
from clients.flower.timing import CLOSE_WITHIN_S, TELL_WITHIN_S
from clients.ray.authentication import give_own_token, starts_own_ray
from dogo_fed.errors import DogoError, outside
from dogo_fed.wire import dogo_pb2 as pb

logger = logging.getLogger(__name__)

app = ClientApp()

if starts_own_ray():
    # Flower's simulation loads this module right before it starts its Ray, in the same process, and
    # asks nothing else of us until then. Elsewhere no Ray is started, and this changes nothing.
    give_own_token()

_SITE_MARGIN_S = 10.0


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Returns which peer this node is for: by name, or by its number in simulation."""
    node = context.node_config
    about = ConfigRecord(
        {
            PEER: str(node.get(PEER, "")),
            IS_SITE: ADDRESS_KEY in node,
            PARTITION_ID: int(node.get(PARTITION_ID, -1)),
            NUM_PARTITIONS: int(node.get(NUM_PARTITIONS, 0)),
        }
    )
    return Message(RecordDict({ABOUT: about}), reply_to=message)


@app.train("start")
def start(message: Message, context: Context) -> Message:
    """Starts the peer, unless it runs already."""
    return _forward(message, context)


@app.train("round")
def begin_round(message: Message, context: Context) -> Message:
    """Lets the peer do the steps of another round."""
    return _forward(message, context)


@app.train("step")
def step(message: Message, context: Context) -> Message:
    """With exchange=flower: brings a step's mean; the reply carries the next distribution."""
    return _forward(message, context)


@app.query("status")
def status(message: Message, context: Context) -> Message:
    """Asks for the peer's state."""
    return _forward(message, context)


@app.query("checkpoints")
def checkpoints(message: Message, context: Context) -> Message:
    """Asks which checkpoints of a run the peer has."""
    return _forward(message, context)


@app.query("stop")
def stop(message: Message, context: Context) -> Message:
    """Ends the peer."""
    return _forward(message, context)


def _forward(message: Message, context: Context) -> Message:
    body, lease_s = request_in(message)
    is_site = ADDRESS_KEY in context.node_config
    reply = _ask_site(body, context) if is_site else _ask_actor(body, lease_s)
    return answer_to(message, reply)


def _ask_actor(body: bytes, lease_s: float) -> pb.HostReply:
    # Imported here: a site's ClientApp needs no Ray, and starts once per message.
    from clients.flower.simulation import forward

    return forward(pb.HostRequest.FromString(body), lease_s)


def _ask_site(body: bytes, context: Context) -> pb.HostReply:
    from clients.flower.site.carrier import SiteCarrier

    request = pb.HostRequest.FromString(body)
    within_s = request.hold_s + _SITE_MARGIN_S
    within_s += CLOSE_WITHIN_S * request.close + TELL_WITHIN_S * request.asks_checkpoints
    try:
        carrier = SiteCarrier.from_node_config(context.node_config)
        return pb.HostReply.FromString(carrier.forward(body, within_s))
    except DogoError as error:
        logger.warning("the peer process can't be asked: %s", error)
        address = str(context.node_config[ADDRESS_KEY])  # a path, maybe with somebody's name
        told = outside(error).replace(address, f"its {ADDRESS_KEY}")
        return pb.HostReply(state=pb.AWAY, message=told)

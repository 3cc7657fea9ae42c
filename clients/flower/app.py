"""Flower's ClientApp: passes a message to the process that hosts this node's peer, and replies.

Flower's process lives for one message (deployment), or serves any node's next message (simulation),
so the peer does not live in it. In simulation the peer's process is a named Ray actor; in
deployment it is the site's own `dogo-fed peer`, found by `peer-address` in the node's
configuration. No handler waits for training.
"""

from __future__ import annotations

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.flower.timing import CLOSE_WITHIN_S
from clients.ray.authentication import give_own_token, starts_own_ray
from dogo_fed.errors import DogoError
from dogo_fed.wire import dogo_pb2 as pb

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
            "peer": str(node.get("peer", "")),
            "is-site": "peer-address" in node,
            "partition-id": int(node.get("partition-id", -1)),
            "num-partitions": int(node.get("num-partitions", 0)),
        }
    )
    return Message(RecordDict({"about": about}), reply_to=message)


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
    told = message.content.config_records["dogo"]
    body, lease_s = told["request"], told["lease-s"]
    assert isinstance(body, bytes), "the ServerApp sends bytes"
    assert isinstance(lease_s, float), "the ServerApp sends seconds"
    is_site = "peer-address" in context.node_config
    reply = _ask_site(body, context) if is_site else _ask_actor(body, lease_s)
    content = RecordDict(
        {
            "dogo": ConfigRecord({"reply": reply.SerializeToString()}),
            "metrics": MetricRecord({"next-step": reply.next_step}),
        }
    )
    return Message(content, reply_to=message)


def _ask_actor(body: bytes, lease_s: float) -> pb.HostReply:
    # Imported here: a site's ClientApp needs no Ray, and starts once per message.
    from clients.flower.simulation import forward

    return forward(pb.HostRequest.FromString(body), lease_s)


def _ask_site(body: bytes, context: Context) -> pb.HostReply:
    from clients.flower.site.carrier import SiteCarrier

    request = pb.HostRequest.FromString(body)
    within_s = request.hold_s + _SITE_MARGIN_S + (CLOSE_WITHIN_S if request.close else 0.0)
    try:
        carrier = SiteCarrier.from_node_config(context.node_config)
        return pb.HostReply.FromString(carrier.forward(body, within_s))
    except DogoError as error:
        return pb.HostReply(state=pb.AWAY, message=str(error))

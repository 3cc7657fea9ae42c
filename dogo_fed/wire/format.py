"""The form of a run's distributions in messages: one value that knows their sizes and their bytes.

Both sides of a run make the same `WireFormat` from the settings that they have agreed on. All code
that sends, receives, limits or counts distributions uses it.
"""

# N = images in the step's batch

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from dogo_fed.config import Encoding, RunConfig
from dogo_fed.contracts import PeerId, SimilarityDistribution, TeacherSignal, Ticket
from dogo_fed.errors import MalformedDistribution
from dogo_fed.ledger import Part, part
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.codec import encode_ticket, non_negative
from dogo_fed.wire.encodings.base import MatrixEncoding
from dogo_fed.wire.encodings.catalog import ENCODINGS
from dogo_fed.wire.encodings.top_k import TopK
from dogo_fed.wire.validation import check_distribution

_ENVELOPE_BYTES = 64 * 1024
"""Room for everything in a message that is no matrix: names, ticket, teachers."""


@dataclass(frozen=True, slots=True)
class WireFormat:
    """The form of a run's distributions.

    Attributes:
        batch_size: N, the images that a step shares; a distribution is N x N.
        is_symmetric: whether each distribution has a reverse (exchange.symmetric).
        encoding: how the numbers become bytes (exchange.encoding).
        top_k: how many numbers of a row travel, if not all do (exchange.top_k).
    """

    batch_size: int
    is_symmetric: bool = False
    encoding: Encoding = Encoding.FLOAT32
    top_k: int = 16

    @classmethod
    def of(cls, config: RunConfig) -> WireFormat:
        """Returns the format that a run has agreed on.

        Args:
            config: its settings, fitted to the images.
        """
        exchange = config.exchange
        return cls(config.anchors_per_step, exchange.symmetric, exchange.encoding, exchange.top_k)

    @property
    def payload_bytes(self) -> int:
        """Size of the matrices that one exchange sends, and as much that it receives, in bytes."""
        num_matrices = 2 if self.is_symmetric else 1
        return num_matrices * self._matrix.num_bytes(self.batch_size)

    @property
    def limit_bytes(self) -> int:
        """Size of the largest message of an exchange, matrices and the rest, in bytes."""
        return self.payload_bytes + _ENVELOPE_BYTES

    def check(self, distribution: SimilarityDistribution) -> None:
        """Checks that this distribution has the run's form and is a similarity distribution.

        Raises:
            MalformedDistribution: its size or its number of view directions is not the run's, or it
                is not a similarity distribution.
        """
        self._check_directions(distribution.reverse is not None)
        wanted = (self.batch_size, self.batch_size)
        if distribution.p_NN.shape != wanted:
            raise MalformedDistribution(
                f"the distribution is a matrix of shape {distribution.p_NN.shape}; the batch size "
                f"is {self.batch_size}"
            )
        check_distribution(distribution, self._matrix.row_sum_tolerance)

    def as_carried(self, distribution: SimilarityDistribution) -> SimilarityDistribution:
        """Returns the distribution encoded and decoded; the same object if that is exact."""
        if self._matrix.is_exact:
            return distribution
        reverse = distribution.reverse
        return SimilarityDistribution(
            self._matrix.decode(self._matrix.encode(distribution.p_NN), self.batch_size),
            distribution.negative_entropy,
            None if reverse is None else self.as_carried(reverse),
        )

    def signal_as_carried(self, signal: TeacherSignal) -> TeacherSignal:
        """Returns the signal as a message would deliver it; the very same where that is exact."""
        if self._matrix.is_exact or signal.mean_NN is None:
            return signal
        mean = SimilarityDistribution(signal.mean_NN, signal.negative_entropy, signal.reverse)
        carried = self.as_carried(mean)
        return dataclasses.replace(signal, mean_NN=carried.p_NN, reverse=carried.reverse)

    def encode(self, distribution: SimilarityDistribution) -> pb.Distribution:
        """Returns the message for one view direction; the reverse is left out."""
        message = pb.Distribution()
        self._write(distribution, message)
        return message

    def decode(self, message: pb.Distribution) -> SimilarityDistribution:
        """Returns the distribution of one view direction, checked. Its matrix may be read-only.

        Raises:
            MalformedDistribution: its type, size or number of bytes is wrong, or it is not
                row-stochastic.
        """
        if message.dtype != self._matrix.code:
            raise MalformedDistribution(
                f"the distribution has dtype code {message.dtype}; this run exchanges "
                f"{self.encoding.value}"
            )
        if message.size != self.batch_size:
            raise MalformedDistribution(
                f"the distribution is over {message.size} images; the batch size is "
                f"{self.batch_size}"
            )
        rows = message.rows  # once: each reading copies them
        expected = self._matrix.num_bytes(self.batch_size)
        if len(rows) != expected:
            raise MalformedDistribution(
                f"the distribution has {len(rows)} bytes instead of {expected}"
            )
        distribution = SimilarityDistribution(
            self._matrix.decode(rows, self.batch_size), message.negative_entropy
        )
        check_distribution(distribution, self._matrix.row_sum_tolerance)
        return distribution

    def encode_published(
        self, sender: pb.Sender, ticket: Ticket, distribution: SimilarityDistribution
    ) -> pb.ExchangeRequest:
        """Returns the request with which a peer publishes its distribution."""
        with part(Part.ENCODE):
            request = pb.ExchangeRequest(sender=sender, ticket=encode_ticket(ticket))
            self._write(distribution, request.distribution)
            if distribution.reverse is not None:
                self._write(distribution.reverse, request.reverse)
            return request

    def decode_published(self, request: pb.ExchangeRequest) -> SimilarityDistribution:
        """Returns the distribution that a peer has published, checked.

        Raises:
            MalformedDistribution: see `decode`, or the number of view directions is not the run's.
        """
        given = self.decode(request.distribution)
        has_reverse = request.HasField("reverse")
        self._check_directions(has_reverse)
        if not has_reverse:
            return given
        return dataclasses.replace(given, reverse=self._decode_reverse(request.reverse))

    def encode_signal(self, signal: TeacherSignal) -> pb.ExchangeReply:
        """Returns the reply that brings a peer its teachers' mean."""
        reply = pb.ExchangeReply(
            teachers=signal.teachers,
            next_step=signal.next_step,
            stop=signal.stop,
            waited_s=signal.waited_s,
        )
        if signal.mean_NN is not None:
            mean = SimilarityDistribution(signal.mean_NN, signal.negative_entropy)
            self._write(mean, reply.mean)
        if signal.reverse is not None:
            self._write(signal.reverse, reply.reverse_mean)
        return reply

    def decode_signal(self, message: pb.ExchangeReply) -> TeacherSignal:
        """Returns the signal in a reply, its matrices checked.

        Raises:
            MalformedDistribution: a mean is not a distribution; there are teachers but no mean, or
                a mean but no teachers; or the number of view directions is not the run's.
        """
        teachers = tuple(PeerId(name) for name in message.teachers)
        if message.HasField("mean") != bool(teachers):
            raise MalformedDistribution(
                f"the coordinator's answer names {len(teachers)} teachers but "
                f"{'has a' if message.HasField('mean') else 'has no'} mean distribution"
            )
        if message.HasField("reverse_mean") != (self.is_symmetric and bool(teachers)):
            has = "has a" if message.HasField("reverse_mean") else "has no"
            raise MalformedDistribution(
                f"the coordinator's answer {has} mean of the reverse direction; this run exchanges "
                f"{_directions(self.is_symmetric)}"
            )
        mean_NN, negative_entropy, reverse = None, 0.0, None
        if teachers:
            with part(Part.DECODE):
                mean = self.decode(message.mean)
                reverse = self._decode_reverse(message.reverse_mean) if self.is_symmetric else None
            mean_NN, negative_entropy = mean.p_NN, mean.negative_entropy
        return TeacherSignal(
            mean_NN=mean_NN,
            negative_entropy=negative_entropy,
            teachers=teachers,
            next_step=message.next_step,
            stop=message.stop,
            waited_s=non_negative(message.waited_s),
            reverse=reverse,
        )

    @property
    def _matrix(self) -> MatrixEncoding:
        matrix = ENCODINGS[self.encoding]
        return TopK(self.top_k) if isinstance(matrix, TopK) else matrix

    def _check_directions(self, has_reverse: bool) -> None:
        if has_reverse != self.is_symmetric:
            raise MalformedDistribution(
                f"the distribution has {_directions(has_reverse)}; this run exchanges "
                f"{_directions(self.is_symmetric)} (exchange.symmetric)"
            )

    def _write(self, distribution: SimilarityDistribution, message: pb.Distribution) -> None:
        """Writes one view direction into a message, which may be a field of another.

        A message that is given to another one is copied, with its matrix.
        """
        message.dtype = self._matrix.code
        message.size = len(distribution.p_NN)
        message.rows = self._matrix.encode(distribution.p_NN)
        message.negative_entropy = distribution.negative_entropy

    def _decode_reverse(self, message: pb.Distribution) -> SimilarityDistribution:
        try:
            return self.decode(message)
        except MalformedDistribution as error:
            raise MalformedDistribution(f"in the reverse direction, {error}") from error


def _directions(both: bool) -> str:
    return "both view directions" if both else "one view direction"

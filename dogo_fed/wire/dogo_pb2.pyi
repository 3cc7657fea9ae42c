from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODE_UNSPECIFIED: _ClassVar[Code]
    REFUSED: _ClassVar[Code]
    SCHEMA_MISMATCH: _ClassVar[Code]
    STALE_TICKET: _ClassVar[Code]
    MALFORMED: _ClassVar[Code]

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[DType]
    FLOAT32: _ClassVar[DType]
    FLOAT16: _ClassVar[DType]
    LOG8: _ClassVar[DType]
    TOP_K: _ClassVar[DType]

class HostState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HOST_STATE_UNSPECIFIED: _ClassVar[HostState]
    UNKNOWN: _ClassVar[HostState]
    RUNNING: _ClassVar[HostState]
    WAITING: _ClassVar[HostState]
    ENDED: _ClassVar[HostState]
    NO_ROOM: _ClassVar[HostState]
    AWAY: _ClassVar[HostState]
CODE_UNSPECIFIED: Code
REFUSED: Code
SCHEMA_MISMATCH: Code
STALE_TICKET: Code
MALFORMED: Code
DTYPE_UNSPECIFIED: DType
FLOAT32: DType
FLOAT16: DType
LOG8: DType
TOP_K: DType
HOST_STATE_UNSPECIFIED: HostState
UNKNOWN: HostState
RUNNING: HostState
WAITING: HostState
ENDED: HostState
NO_ROOM: HostState
AWAY: HostState

class Refusal(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: Code
    message: str
    def __init__(self, code: _Optional[_Union[Code, str]] = ..., message: _Optional[str] = ...) -> None: ...

class Sender(_message.Message):
    __slots__ = ("peer", "incarnation")
    PEER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    peer: str
    incarnation: str
    def __init__(self, peer: _Optional[str] = ..., incarnation: _Optional[str] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("sender", "run_id", "agreement")
    class AgreementEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SENDER_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    sender: Sender
    run_id: str
    agreement: _containers.ScalarMap[str, str]
    def __init__(self, sender: _Optional[_Union[Sender, _Mapping]] = ..., run_id: _Optional[str] = ..., agreement: _Optional[_Mapping[str, str]] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("refusal", "next_step")
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEP_FIELD_NUMBER: _ClassVar[int]
    refusal: Refusal
    next_step: int
    def __init__(self, refusal: _Optional[_Union[Refusal, _Mapping]] = ..., next_step: _Optional[int] = ...) -> None: ...

class Distribution(_message.Message):
    __slots__ = ("dtype", "size", "rows", "negative_entropy")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_ENTROPY_FIELD_NUMBER: _ClassVar[int]
    dtype: DType
    size: int
    rows: bytes
    negative_entropy: float
    def __init__(self, dtype: _Optional[_Union[DType, str]] = ..., size: _Optional[int] = ..., rows: _Optional[bytes] = ..., negative_entropy: _Optional[float] = ...) -> None: ...

class Ticket(_message.Message):
    __slots__ = ("run_id", "round", "step", "batch_digest")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    BATCH_DIGEST_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    round: int
    step: int
    batch_digest: str
    def __init__(self, run_id: _Optional[str] = ..., round: _Optional[int] = ..., step: _Optional[int] = ..., batch_digest: _Optional[str] = ...) -> None: ...

class ExchangeRequest(_message.Message):
    __slots__ = ("sender", "ticket", "distribution", "reverse")
    SENDER_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    DISTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    REVERSE_FIELD_NUMBER: _ClassVar[int]
    sender: Sender
    ticket: Ticket
    distribution: Distribution
    reverse: Distribution
    def __init__(self, sender: _Optional[_Union[Sender, _Mapping]] = ..., ticket: _Optional[_Union[Ticket, _Mapping]] = ..., distribution: _Optional[_Union[Distribution, _Mapping]] = ..., reverse: _Optional[_Union[Distribution, _Mapping]] = ...) -> None: ...

class ExchangeReply(_message.Message):
    __slots__ = ("refusal", "mean", "teachers", "next_step", "stop", "waited_s", "reverse_mean", "still_open")
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    TEACHERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEP_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    WAITED_S_FIELD_NUMBER: _ClassVar[int]
    REVERSE_MEAN_FIELD_NUMBER: _ClassVar[int]
    STILL_OPEN_FIELD_NUMBER: _ClassVar[int]
    refusal: Refusal
    mean: Distribution
    teachers: _containers.RepeatedScalarFieldContainer[str]
    next_step: int
    stop: bool
    waited_s: float
    reverse_mean: Distribution
    still_open: bool
    def __init__(self, refusal: _Optional[_Union[Refusal, _Mapping]] = ..., mean: _Optional[_Union[Distribution, _Mapping]] = ..., teachers: _Optional[_Iterable[str]] = ..., next_step: _Optional[int] = ..., stop: bool = ..., waited_s: _Optional[float] = ..., reverse_mean: _Optional[_Union[Distribution, _Mapping]] = ..., still_open: bool = ...) -> None: ...

class StepReport(_message.Message):
    __slots__ = ("round", "step", "ssl_loss", "mutual_kl", "num_teachers", "compute_s", "wait_s", "exchange_s", "bytes_up", "bytes_down")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SSL_LOSS_FIELD_NUMBER: _ClassVar[int]
    MUTUAL_KL_FIELD_NUMBER: _ClassVar[int]
    NUM_TEACHERS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_S_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_S_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    round: int
    step: int
    ssl_loss: float
    mutual_kl: float
    num_teachers: int
    compute_s: float
    wait_s: float
    exchange_s: float
    bytes_up: int
    bytes_down: int
    def __init__(self, round: _Optional[int] = ..., step: _Optional[int] = ..., ssl_loss: _Optional[float] = ..., mutual_kl: _Optional[float] = ..., num_teachers: _Optional[int] = ..., compute_s: _Optional[float] = ..., wait_s: _Optional[float] = ..., exchange_s: _Optional[float] = ..., bytes_up: _Optional[int] = ..., bytes_down: _Optional[int] = ...) -> None: ...

class RoundReport(_message.Message):
    __slots__ = ("round", "step", "knn_top1", "seconds", "feature_std", "rankme", "alignment", "uniformity")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    KNN_TOP1_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    FEATURE_STD_FIELD_NUMBER: _ClassVar[int]
    RANKME_FIELD_NUMBER: _ClassVar[int]
    ALIGNMENT_FIELD_NUMBER: _ClassVar[int]
    UNIFORMITY_FIELD_NUMBER: _ClassVar[int]
    round: int
    step: int
    knn_top1: float
    seconds: float
    feature_std: float
    rankme: float
    alignment: float
    uniformity: float
    def __init__(self, round: _Optional[int] = ..., step: _Optional[int] = ..., knn_top1: _Optional[float] = ..., seconds: _Optional[float] = ..., feature_std: _Optional[float] = ..., rankme: _Optional[float] = ..., alignment: _Optional[float] = ..., uniformity: _Optional[float] = ...) -> None: ...

class PeerResult(_message.Message):
    __slots__ = ("backbone", "objective", "parameters", "knn_top1", "linear_top1", "knn_top1_untrained", "ssl_loss", "mutual_kl", "state_digest", "steps_trained", "feature_std", "rankme", "alignment", "uniformity", "rankme_untrained")
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    KNN_TOP1_FIELD_NUMBER: _ClassVar[int]
    LINEAR_TOP1_FIELD_NUMBER: _ClassVar[int]
    KNN_TOP1_UNTRAINED_FIELD_NUMBER: _ClassVar[int]
    SSL_LOSS_FIELD_NUMBER: _ClassVar[int]
    MUTUAL_KL_FIELD_NUMBER: _ClassVar[int]
    STATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STEPS_TRAINED_FIELD_NUMBER: _ClassVar[int]
    FEATURE_STD_FIELD_NUMBER: _ClassVar[int]
    RANKME_FIELD_NUMBER: _ClassVar[int]
    ALIGNMENT_FIELD_NUMBER: _ClassVar[int]
    UNIFORMITY_FIELD_NUMBER: _ClassVar[int]
    RANKME_UNTRAINED_FIELD_NUMBER: _ClassVar[int]
    backbone: str
    objective: str
    parameters: int
    knn_top1: float
    linear_top1: float
    knn_top1_untrained: float
    ssl_loss: float
    mutual_kl: float
    state_digest: str
    steps_trained: int
    feature_std: float
    rankme: float
    alignment: float
    uniformity: float
    rankme_untrained: float
    def __init__(self, backbone: _Optional[str] = ..., objective: _Optional[str] = ..., parameters: _Optional[int] = ..., knn_top1: _Optional[float] = ..., linear_top1: _Optional[float] = ..., knn_top1_untrained: _Optional[float] = ..., ssl_loss: _Optional[float] = ..., mutual_kl: _Optional[float] = ..., state_digest: _Optional[str] = ..., steps_trained: _Optional[int] = ..., feature_std: _Optional[float] = ..., rankme: _Optional[float] = ..., alignment: _Optional[float] = ..., uniformity: _Optional[float] = ..., rankme_untrained: _Optional[float] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("sender", "steps", "rounds", "result", "evaluating")
    SENDER_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    EVALUATING_FIELD_NUMBER: _ClassVar[int]
    sender: Sender
    steps: _containers.RepeatedCompositeFieldContainer[StepReport]
    rounds: _containers.RepeatedCompositeFieldContainer[RoundReport]
    result: PeerResult
    evaluating: bool
    def __init__(self, sender: _Optional[_Union[Sender, _Mapping]] = ..., steps: _Optional[_Iterable[_Union[StepReport, _Mapping]]] = ..., rounds: _Optional[_Iterable[_Union[RoundReport, _Mapping]]] = ..., result: _Optional[_Union[PeerResult, _Mapping]] = ..., evaluating: bool = ...) -> None: ...

class ReportReply(_message.Message):
    __slots__ = ("refusal", "stop")
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    refusal: Refusal
    stop: bool
    def __init__(self, refusal: _Optional[_Union[Refusal, _Mapping]] = ..., stop: bool = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("sender",)
    SENDER_FIELD_NUMBER: _ClassVar[int]
    sender: Sender
    def __init__(self, sender: _Optional[_Union[Sender, _Mapping]] = ...) -> None: ...

class LeaveReply(_message.Message):
    __slots__ = ("refusal",)
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    refusal: Refusal
    def __init__(self, refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class HostRequest(_message.Message):
    __slots__ = ("run_id", "peer", "start", "assignment", "until_step", "close", "hold_s", "join", "answer", "answer_step", "reports_received", "stop", "asks_checkpoints")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    UNTIL_STEP_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    HOLD_S_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    ANSWER_STEP_FIELD_NUMBER: _ClassVar[int]
    REPORTS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    ASKS_CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    peer: str
    start: int
    assignment: str
    until_step: int
    close: bool
    hold_s: float
    join: JoinReply
    answer: ExchangeReply
    answer_step: int
    reports_received: int
    stop: bool
    asks_checkpoints: bool
    def __init__(self, run_id: _Optional[str] = ..., peer: _Optional[str] = ..., start: _Optional[int] = ..., assignment: _Optional[str] = ..., until_step: _Optional[int] = ..., close: bool = ..., hold_s: _Optional[float] = ..., join: _Optional[_Union[JoinReply, _Mapping]] = ..., answer: _Optional[_Union[ExchangeReply, _Mapping]] = ..., answer_step: _Optional[int] = ..., reports_received: _Optional[int] = ..., stop: bool = ..., asks_checkpoints: bool = ...) -> None: ...

class HostReply(_message.Message):
    __slots__ = ("state", "outcome", "message", "where", "next_step", "join", "offer", "reports", "first_report", "leave", "checkpoints", "broken_checkpoints")
    STATE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEP_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    FIRST_REPORT_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    BROKEN_CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    state: HostState
    outcome: int
    message: str
    where: str
    next_step: int
    join: JoinRequest
    offer: ExchangeRequest
    reports: _containers.RepeatedCompositeFieldContainer[ReportRequest]
    first_report: int
    leave: LeaveRequest
    checkpoints: str
    broken_checkpoints: str
    def __init__(self, state: _Optional[_Union[HostState, str]] = ..., outcome: _Optional[int] = ..., message: _Optional[str] = ..., where: _Optional[str] = ..., next_step: _Optional[int] = ..., join: _Optional[_Union[JoinRequest, _Mapping]] = ..., offer: _Optional[_Union[ExchangeRequest, _Mapping]] = ..., reports: _Optional[_Iterable[_Union[ReportRequest, _Mapping]]] = ..., first_report: _Optional[int] = ..., leave: _Optional[_Union[LeaveRequest, _Mapping]] = ..., checkpoints: _Optional[str] = ..., broken_checkpoints: _Optional[str] = ...) -> None: ...

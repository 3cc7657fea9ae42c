"""What can cross the wire at all, and whether the generated code is that of the .proto."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor

import dogo_fed.wire
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire import dogo_pb2_grpc

PROTO = Path(dogo_fed.wire.__file__).with_name("dogo.proto")
NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
    FieldDescriptor.CPPTYPE_DOUBLE,
    FieldDescriptor.CPPTYPE_FLOAT,
    FieldDescriptor.CPPTYPE_BOOL,
    FieldDescriptor.CPPTYPE_ENUM,
}
TYPE_NAMES = {
    getattr(FieldDescriptor, name): name.removeprefix("TYPE_").lower()
    for name in dir(FieldDescriptor)
    if name.startswith("TYPE_")
}


def all_messages():
    waiting = list(pb.DESCRIPTOR.message_types_by_name.values())
    while waiting:
        message = waiting.pop()
        yield message
        waiting += message.nested_types


def may_hold_a_tensor(field):
    is_list_of_numbers = field.is_repeated and field.cpp_type in NUMBERS
    return field.type == FieldDescriptor.TYPE_BYTES or is_list_of_numbers


def test_the_only_tensor_on_the_wire_is_the_distribution():
    found = [
        field.full_name
        for message in all_messages()
        for field in message.fields
        if may_hold_a_tensor(field)
    ]
    assert found == ["dogo.v1.Distribution.rows"]


def test_nothing_smuggles_bytes_past_the_descriptors():
    """No extensions, no groups, no Any: every field is one of those walked above."""
    assert pb.DESCRIPTOR.dependencies == [] or list(pb.DESCRIPTOR.dependencies) == []
    for message in all_messages():
        assert not message.is_extendable
        assert all(field.type != FieldDescriptor.TYPE_GROUP for field in message.fields)


def test_only_exchange_carries_a_distribution_one_per_view_direction_each_way():
    carriers = [
        field
        for message in all_messages()
        for field in message.fields
        if field.message_type is pb.Distribution.DESCRIPTOR
    ]
    assert {field.full_name for field in carriers} == {
        "dogo.v1.ExchangeRequest.distribution",
        "dogo.v1.ExchangeRequest.reverse",
        "dogo.v1.ExchangeReply.mean",
        "dogo.v1.ExchangeReply.reverse_mean",
    }
    assert not any(field.is_repeated for field in carriers)


# ---- the generated code is current ----


def proto_text():
    return re.sub(r"//.*", "", PROTO.read_text(encoding="utf-8"))


def blocks(keyword):
    """Returns name to body of the blocks that `keyword` opens; the file has no nested ones."""
    found = re.findall(rf"\b{keyword}\s+(\w+)\s*\{{(.*?)\n?\}}", proto_text(), re.DOTALL)
    assert found, f"no {keyword} in {PROTO.name}"
    return dict(found)


def written_fields(body):
    """Returns (label, type, name, number) of every field."""
    pattern = r"(repeated\s+)?(map<\s*\w+\s*,\s*\w+\s*>|\w+)\s+(\w+)\s*=\s*(\d+)\s*;"
    statements = [part for part in body.split(";") if part.strip()]
    fields = re.findall(pattern, body)
    assert len(fields) == len(statements), "every statement of a message is a field"
    return [
        ("repeated" if label else "", re.sub(r"\s", "", kind), name, int(number))
        for label, kind, name, number in fields
    ]


def generated_fields(message):
    fields = []
    for field in message.fields:
        kind = TYPE_NAMES[field.type]
        if field.message_type is not None:
            kind = field.message_type.name
        elif field.enum_type is not None:
            kind = field.enum_type.name
        label = "repeated" if field.is_repeated else ""
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = field.message_type.fields
            kind, label = f"map<{TYPE_NAMES[key.type]},{TYPE_NAMES[value.type]}>", ""
        fields.append((label, kind, field.name, field.number))
    return fields


def test_the_generated_messages_are_those_of_the_proto():
    written = {name: written_fields(body) for name, body in blocks("message").items()}
    generated = {
        name: generated_fields(message)
        for name, message in pb.DESCRIPTOR.message_types_by_name.items()
    }
    assert generated == written


def test_the_generated_enums_are_those_of_the_proto():
    written = {
        name: [(value, int(number)) for value, number in re.findall(r"(\w+)\s*=\s*(\d+)", body)]
        for name, body in blocks("enum").items()
    }
    generated = {
        name: [(value.name, value.number) for value in enum.values]
        for name, enum in pb.DESCRIPTOR.enum_types_by_name.items()
    }
    assert generated == written


def test_the_generated_service_is_that_of_the_proto():
    pattern = r"rpc\s+(\w+)\s*\(\s*(\w+)\s*\)\s*returns\s*\(\s*(\w+)\s*\)"
    written = {name: re.findall(pattern, body) for name, body in blocks("service").items()}
    generated = {
        name: [(call.name, call.input_type.name, call.output_type.name) for call in service.methods]
        for name, service in pb.DESCRIPTOR.services_by_name.items()
    }
    assert generated == written
    for name, calls in written.items():
        servicer = getattr(dogo_pb2_grpc, f"{name}Servicer")
        assert {call for call, _, _ in calls} <= set(vars(servicer))


def test_package_and_syntax_are_those_of_the_proto():
    assert 'syntax = "proto3";' in proto_text()
    assert f"package {pb.DESCRIPTOR.package};" in proto_text()


@pytest.mark.parametrize("stub", ["dogo_pb2.pyi"])
def test_the_type_stub_knows_every_message_and_field(stub):
    text = PROTO.with_name(stub).read_text(encoding="utf-8")
    for name, message in pb.DESCRIPTOR.message_types_by_name.items():
        body = re.search(rf"^class {name}\(.*?(?=^class |\Z)", text, re.DOTALL | re.MULTILINE)
        assert body is not None, f"{name} is not in {stub}"
        for field in message.fields:
            assert re.search(rf"^\s+{field.name}: ", body.group(), re.MULTILINE), field.full_name

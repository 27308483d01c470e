"""The gRPC backend around ExLlamaV2 (nix/engines/localai/exllama2/backend.py), as far as it goes without torch and a GPU.

Messages have the names and numbers of LocalAI's backend.proto; tests/nixpkgs/test_exllama2.py asks through LocalAI itself.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from aikit_nix.base import data

BACKEND = data.NIX / "engines/localai/exllama2/backend.py"
STRING, BYTES, BOOL, INT32, ENUM = 9, 12, 8, 5, 14
MESSAGES: dict[str, dict[str, tuple[int, int]]] = {
    "HealthMessage": {},
    "ModelOptions": {"Model": (1, STRING), "ContextSize": (2, INT32), "ModelFile": (21, STRING)},
    "PredictOptions": {"Prompt": (1, STRING), "ModelIdentity": (54, STRING)},
    "Reply": {"message": (1, BYTES), "tokens": (2, INT32)},
    "Result": {"message": (1, STRING), "success": (2, BOOL)},
    "StatusResponse": {"state": (1, ENUM)},
}
METHODS = {
    "Health": ("HealthMessage", "Reply", False),
    "Status": ("HealthMessage", "StatusResponse", False),
    "LoadModel": ("ModelOptions", "Result", False),
    "Predict": ("PredictOptions", "Reply", False),
    "PredictStream": ("PredictOptions", "Reply", True),
    "Embedding": ("PredictOptions", "Reply", False),
}


def protocol() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="backend.proto", package="backend", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            added = message.field.add(name=field, number=number, type=kind, label=1)
            if kind == ENUM:
                added.type_name = ".backend.StatusResponse.State"
    states = file.message_type[-1].enum_type.add(name="State")
    for number, state in enumerate(("UNINITIALIZED", "BUSY", "READY")):
        states.value.add(name=state, number=number)
    service = file.service.add(name="Backend")
    for name, (asks, answers, streams) in METHODS.items():
        service.method.add(
            name=name, input_type=f".backend.{asks}", output_type=f".backend.{answers}", server_streaming=streams
        )
    return file


class Client:
    """Calls of a running backend."""

    def __init__(self, channel: grpc.Channel) -> None:
        pool = descriptor_pool.DescriptorPool()
        pool.Add(protocol())
        self.channel = channel
        self.message = {
            name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"backend.{name}")) for name in MESSAGES
        }

    def call(self, method: str, **fields: Any) -> Any:
        asks, answers, streams = METHODS[method]
        kind: Any = self.channel.unary_stream if streams else self.channel.unary_unary
        called = kind(
            f"/backend.Backend/{method}",
            request_serializer=self.message[asks].SerializeToString,
            response_deserializer=self.message[answers].FromString,
        )(self.message[asks](**fields), timeout=30, wait_for_ready=True)
        return list(called) if streams else called


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Client]:
    (tmp_path / "proto").write_bytes(descriptor_pb2.FileDescriptorSet(file=[protocol()]).SerializeToString())
    address = f"unix:{tmp_path}/socket"
    process = subprocess.Popen([sys.executable, "-B", BACKEND, tmp_path / "proto", "--addr", address])
    try:
        with grpc.insecure_channel(address) as channel:
            yield Client(channel)
        assert process.poll() is None, "no refusal ends it"
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_it_is_well_before_it_has_a_model(backend: Client) -> None:
    assert backend.call("Health").message == b"OK"
    assert backend.call("Status").state == 0


def test_what_is_no_folder_of_weights_is_refused_and_the_server_lives_on(backend: Client, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    for file in (tmp_path / "m.gguf", tmp_path, tmp_path / "none"):
        answer = backend.call("LoadModel", Model="m", ModelFile=str(file))
        assert not answer.success
        assert "is no folder with a config.json: ExLlamaV2 loads folders of EXL2 or GPTQ weights" in answer.message
    assert backend.call("Health").message == b"OK"


def test_a_tokenizer_of_old_is_not_enough(backend: Client, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.model").touch()
    answer = backend.call("LoadModel", Model="m", ModelFile=str(tmp_path))
    assert not answer.success
    assert "has no tokenizer.json" in answer.message
    assert "add the repository's tokenizer.json to the models" in answer.message


@pytest.mark.parametrize("method", ["Predict", "PredictStream"])
def test_without_a_model_there_is_no_answer(backend: Client, method: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        backend.call(method, Prompt="hello")
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert refused.value.details() == "no model is loaded"
    assert backend.call("Health").message == b"OK"


def test_what_it_does_not_have_it_says(backend: Client) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        backend.call("Embedding", Prompt="hello")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED

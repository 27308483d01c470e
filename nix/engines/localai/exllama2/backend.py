"""LocalAI's backend `exllama2`: ExLlamaV2 behind the gRPC service of LocalAI's backend.proto.

    backend.py PROTO --addr HOST:PORT

PROTO is backend.proto as a protoc descriptor set: messages are made of it here, so that no generated code has to fit the
installed protobuf. A failure to load is an answer and not the end of the process.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "backend.Backend"
# How the server recognises a model that was loaded for another request: pkg/grpc/grpcerrors in LocalAI.
MISMATCH = "model identity mismatch"


class LoadError(Exception):
    """Why the model cannot be loaded, for the user."""


class Model:
    """A model of EXL2, GPTQ or plain weights on all GPUs of the machine."""

    def __init__(self, options: Any) -> None:
        folder = Path(options.ModelFile)
        if not (folder / "config.json").is_file():
            raise LoadError(
                f"{folder} is no folder with a config.json: ExLlamaV2 loads folders of EXL2 or GPTQ weights, not GGUFs"
            )
        if not (folder / "tokenizer.json").is_file():
            raise LoadError(
                f"{folder} has no tokenizer.json, and ExLlamaV2 reads no tokenizer.model any more: add the repository's "
                "tokenizer.json to the models"
            )
        import torch

        if not torch.cuda.is_available():
            raise LoadError(
                "no CUDA device: ExLlamaV2 runs on NVIDIA GPUs only. Start the container with one (`docker run --gpus all`)"
            )
        import exllamav2
        from exllamav2 import generator

        config = exllamav2.ExLlamaV2Config(str(folder))
        config.arch_compat_overrides(quiet=True)
        config.max_seq_len = options.ContextSize or config.max_seq_len
        self.name = options.Model
        self.context = config.max_seq_len
        self.lock = threading.Lock()
        self.api = generator
        model = exllamav2.ExLlamaV2(config)
        cache = exllamav2.ExLlamaV2Cache(model, max_seq_len=self.context, lazy=True)
        model.load_autosplit(cache)
        self.tokenizer = exllamav2.ExLlamaV2Tokenizer(config)
        # Pages need flash-attn, which is not in the image.
        self.generator = generator.ExLlamaV2DynamicGenerator(
            model=model, cache=cache, tokenizer=self.tokenizer, paged=False
        )

    def encode(self, text: str) -> Any:
        """The tokens, with the one that begins a text unless the template has written it."""
        begun = bool(self.tokenizer.bos_token) and text.startswith(self.tokenizer.bos_token)
        return self.tokenizer.encode(text, add_bos=not begun, encode_special_tokens=True)

    def generate(self, options: Any, context: grpc.ServicerContext) -> Iterator[dict[str, Any]]:
        """Pieces of the answer as fields of a Reply, with the count of tokens so far. One request at a time."""
        prompt = self.encode(options.Prompt)
        room = self.context - prompt.shape[-1]
        if room <= 0:
            raise ValueError(f"the prompt has {prompt.shape[-1]} tokens, and the context {self.context}")
        stops = [*options.StopPrompts]
        job = self.api.ExLlamaV2DynamicJob(
            input_ids=prompt,
            max_new_tokens=min(options.Tokens or room, room),
            stop_conditions=stops if options.IgnoreEOS else [*stops, self.tokenizer.eos_token_id],
            gen_settings=self.settings(options),
            seed=options.Seed if options.Seed > 0 else None,
        )
        tokens = 0
        with self.lock:
            self.generator.enqueue(job)
            try:
                while self.generator.num_remaining_jobs() and context.is_active():
                    for result in self.generator.iterate():
                        if result["stage"] == "streaming":
                            tokens += result.get("token_ids", prompt[:, :0]).shape[-1]
                            text = result.get("text", "").encode()
                            yield {"message": text, "tokens": tokens, "prompt_tokens": prompt.shape[-1]}
            finally:
                self.generator.clear_queue()

    def settings(self, options: Any) -> Any:
        """A zero turns its setting off, as it does in ExLlamaV2, but for the repetition penalty."""
        settings = self.api.ExLlamaV2Sampler.Settings()
        settings.temperature = options.Temperature
        settings.top_k = options.TopK
        settings.top_p = options.TopP
        settings.min_p = options.MinP
        settings.token_repetition_penalty = options.Penalty or 1.0
        settings.token_presence_penalty = options.PresencePenalty
        settings.token_frequency_penalty = options.FrequencyPenalty
        return settings


class Backend:
    """The service's methods, by the names of the protocol; `messages` makes its messages."""

    def __init__(self, messages: dict[str, Any]) -> None:
        self.messages = messages
        self.model: Model | None = None

    def Health(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self.messages["Reply"](message=b"OK")

    def Status(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self.messages["StatusResponse"](state="READY" if self.model else "UNINITIALIZED")

    def LoadModel(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        try:
            self.model = Model(request)
        except LoadError as refused:
            return self._result(False, str(refused))
        # Whatever ExLlamaV2 and CUDA may raise, out of memory for one: LocalAI shows it to who asked.
        except Exception as failed:
            return self._result(False, f"{type(failed).__name__}: {failed}")
        return self._result(True, "loaded")

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        pieces = list(self._pieces(request, context))
        whole = b"".join(piece["message"] for piece in pieces)
        return self.messages["Reply"](**{**(pieces[-1] if pieces else {}), "message": whole})

    def PredictStream(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        for piece in self._pieces(request, context):
            yield self.messages["Reply"](**piece)

    def TokenizeString(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        tokens = self._loaded(request, context).encode(request.Prompt)[0].tolist()
        return self.messages["TokenizationResponse"](length=len(tokens), tokens=tokens)

    def _pieces(self, request: Any, context: grpc.ServicerContext) -> Iterator[dict[str, Any]]:
        try:
            yield from self._loaded(request, context).generate(request, context)
        except ValueError as refused:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(refused))

    def _loaded(self, request: Any, context: grpc.ServicerContext) -> Model:
        if self.model is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no model is loaded")
            raise AssertionError
        if request.ModelIdentity not in ("", self.model.name):
            context.abort(grpc.StatusCode.NOT_FOUND, f"{MISMATCH}: {self.model.name} is loaded")
        return self.model

    def _result(self, success: bool, message: str) -> Any:
        return self.messages["Result"](success=success, message=message)


def handlers(proto: Path) -> grpc.GenericRpcHandler:
    """The service of a descriptor set, as far as `Backend` implements it; grpc answers UNIMPLEMENTED for the rest."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(proto.read_bytes()).file:
        pool.Add(file)
    service = pool.FindServiceByName(SERVICE)
    messages = {
        name: message_factory.GetMessageClass(message) for name, message in service.file.message_types_by_name.items()
    }
    backend = Backend(messages)
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            method.name: (
                grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
            )(
                getattr(backend, method.name),
                request_deserializer=messages[method.input_type.name].FromString,
                response_serializer=messages[method.output_type.name].SerializeToString,
            )
            for method in service.methods
            if hasattr(backend, method.name)
        },
    )


def main(proto: str, option: str, address: str) -> None:
    if option != "--addr":
        raise SystemExit(__doc__)
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=8), options=[("grpc.max_receive_message_length", 50 << 20)]
    )
    server.add_generic_rpc_handlers((handlers(Path(proto)),))
    server.add_insecure_port(address)
    server.start()
    for end in (signal.SIGINT, signal.SIGTERM):
        signal.signal(end, lambda *_: server.stop(0))
    print(f"exllama2 listens on {address}", file=sys.stderr, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What an aikitfile and the options become: the plan, or the reason why there is none.

That any text survives stands in test_language_properties.py.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.aikitfile.types import Pin, Runtime
from aikit_nix.base.errors import AikitError, Severity
from aikit_nix.flakes import plan
from aikit_nix.flakes.plan import Engine, Options, Packages, Plan
from support.pins import SHA256, pinned

DEBIAN = Options(packages=Packages.DEBIAN)
LLAMA_SERVER = Options(engine=Engine.LLAMA_SERVER)
DEBIAN_X86 = ("cpu", "avx", "avx2", "avx512", "cuda", "vulkan", "rocm")


def text(more: str = "", name: str = "m", source: str = "https://example.com/m.gguf") -> str:
    models = [{"name": name, "source": source}]
    return f"apiVersion: v1alpha1\n{more}\nmodels: {json.dumps(models, ensure_ascii=False)}\n"


def make(aikitfile: str, options: Options = Options()) -> Plan:  # noqa: B008 (frozen)
    return plan.make(pinned(parse(aikitfile.encode(), "f")[0]), options)[0]


def systems(made: Plan) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {system: (platform.default, platform.runtimes) for system, platform in made.systems.items()}


def test_defaults_follow_the_packages() -> None:
    assert make(text()).engine is Engine.LOCALAI
    made = make(text("runtime: avx2"), replace(DEBIAN, runtime=Runtime.AVX512))
    assert made.engine is Engine.LLAMA_SERVER
    assert systems(made) == {"x86_64-linux": ("avx512", DEBIAN_X86)}
    assert systems(make(text())) == {
        "x86_64-linux": ("avx", ("avx", "avx2", "avx512", "cuda")),
        "aarch64-linux": ("cpu", ("cpu", "cuda")),
    }


@pytest.mark.parametrize("runtime", ["", "cuda", "vulkan", "rocm", "avx2"])
def test_debian_has_arm64_where_the_runtime_is_not_x86s(runtime: str) -> None:
    found = systems(make(text(f"runtime: '{runtime}'"), DEBIAN))
    assert found["x86_64-linux"] == (runtime or "avx", DEBIAN_X86)
    arm = (runtime or "cpu", ("cpu", "cuda", "vulkan"))
    assert found.get("aarch64-linux") == (None if runtime in ("rocm", "avx2") else arm)


def test_any_processor_can_be_asked_for() -> None:
    found = systems(make(text("runtime: avx2"), replace(DEBIAN, runtime=Runtime.CPU)))
    assert {system: default for system, (default, _) in found.items()} == {
        "x86_64-linux": "cpu",
        "aarch64-linux": "cpu",
    }
    with pytest.raises(AikitError, match="any processor, comes from Debian's packages"):
        make(text(), Options(runtime=Runtime.CPU))


@pytest.mark.parametrize("options", [Options(), DEBIAN])
def test_nvidias_licence_is_named(options: Options) -> None:
    _, (said,) = plan.make(pinned(parse(text("runtime: cuda").encode(), "f")[0]), options)
    assert (said.severity, str(said.at)) == (Severity.NOTE, "f:2:10")
    assert "https://docs.nvidia.com/cuda/eula/" in said.message


def test_an_image_is_named_after_its_model() -> None:
    image = make(text(name="Org/My Model_7B")).image
    assert (image.name, image.tag) == ("org-my-model_7b", None)
    assert json.loads(image.labels["aikit-nix.models"]) == {"/models/Org/m.gguf": f"sha256:{SHA256}"}
    image = make(text(), Options(name="reg/x", tag="1.0")).image
    assert (image.name, image.tag, image.labels["org.opencontainers.image.title"]) == ("reg/x", "1.0", "reg/x")


@pytest.mark.parametrize(
    ("model", "image"),
    [("日本", "aikit"), ("---", "aikit"), ("A.B__c", "a.b-c"), ("x" * 250, "x" * 120), ("-a-" * 80, "a-" * 59 + "a")],
)
def test_any_models_name_gives_one_that_registries_take(model: str, image: str) -> None:
    assert make(text(name=model)).image.name == image


def test_a_tag_that_is_chosen_and_the_number_of_all_models_are_in_the_summary() -> None:
    made = make(text(), DEBIAN)
    assert made.summary() == "image m, 1 model, llama-server of debian for avx on x86_64-linux, cpu on aarch64-linux"
    assert "image m, 3 models, " in made.summary(3)


def test_models_to_load_and_cuda_capabilities_are_kept() -> None:
    made = make(text("runtime: cuda\nloadToMemory: [m]"), Options(cuda_capabilities=("8.6", "9.0", "12.1a")))
    assert made.cudaCapabilities == ("8.6", "9.0", "12.1a")
    assert made.env == {"LOCALAI_LOAD_TO_MEMORY": "m"}


@pytest.mark.parametrize(
    ("source", "pin", "how"),
    [
        ("https://h.example/m.gguf", Pin(SHA256, url="https://h.example/abc/m.gguf"), None),
        ("hf://ns/repo/m.gguf", Pin(SHA256, url="https://h.example/m.gguf", private=True), "aikit-nix fetch"),
        ("oci://registry.ollama.ai/library/m:1", Pin(SHA256), "aikit-nix fetch"),
        ("m.gguf", Pin(SHA256, url="https://h.example/m.gguf"), "aikit-nix gen"),
    ],
)
def test_nix_downloads_what_everybody_may_and_finds_the_rest_in_the_store(
    source: str, pin: Pin, how: str | None
) -> None:
    parsed = parse(text(source=source).encode(), "f")[0]
    (file,) = plan.make(replace(parsed, models=(replace(parsed.models[0], pin=pin),)), Options())[0].models
    assert file.url == (pin.url if how is None else None)
    if how is None:
        assert file.fetch is None
    else:
        assert file.fetch
        assert f"Run `{how}`" in file.fetch
        assert f"nix-store --add-fixed sha256 {file.name}\nIts sha256 must be {SHA256}." in file.fetch


def test_a_model_without_a_pin_is_not_planned() -> None:
    assert plan.make(parse(text().encode(), "f")[0], Options())[0].models == ()


@pytest.mark.parametrize(
    ("more", "options", "place", "says"),
    [
        ("runtime: rocm", Options(), "f:2:10", "built from Debian's packages only: use `--packages debian`"),
        ("", Options(runtime=Runtime.VULKAN), None, "built from Debian's packages only"),
        ("", replace(DEBIAN, engine=Engine.LOCALAI), None, "no LocalAI"),
        ("", replace(DEBIAN, cuda_capabilities=("8.6",)), None, "leave --cuda-capability out"),
        ("backends: [exllama]", Options(), "f:2:12", "runs on NVIDIA's GPUs only: add `runtime: cuda`"),
        ("runtime: avx2\nbackends: [exllama2]", Options(), "f:3:12", "or use a GGUF of the model"),
        ("runtime: cuda\nbackends: [exllama2]", LLAMA_SERVER, "f:3:12", "runs inside LocalAI"),
        ("runtime: cuda\nbackends: [exllama2]", DEBIAN, "f:3:12", "runs inside LocalAI"),
        ("backends: [stablediffusion]", LLAMA_SERVER, "f:2:12", "runs inside LocalAI"),
        *(("", Options(name=name), None, "is no image name") for name in ("A B", "", "a//b", "a\n", "é", "-a")),
        *(("", Options(tag=tag), None, "is no image tag") for tag in ("a b", "", "x" * 129, "a\n", ".a", "a/b")),
        *(("", Options(cuda_capabilities=(one,)), None, "--cuda-capability") for one in ("sm_86", "8.6\n", "\uff18.\uff16", "")),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_with_what_can(
    more: str, options: Options, place: str | None, says: str
) -> None:
    with pytest.raises(AikitError, match=re.escape(says)) as refused:
        make(text(more), options)
    assert [finding.at and str(finding.at) for finding in refused.value.diagnostics] == [place]


@pytest.mark.parametrize("names", ["exllama", "exllama2", "exllama2, exllama"])
def test_exllama_is_built_as_its_successor_for_nvidias_gpus_alone(names: str) -> None:
    made = make(text(f"runtime: cuda\nbackends: [{names}]"))
    assert made.backends == ("exllama2",)
    assert {system: platform.runtimes for system, platform in made.systems.items()} == {"x86_64-linux": ("cuda",)}


def test_all_that_does_not_fit_together_is_told_at_once() -> None:
    with pytest.raises(AikitError) as refused:
        make(text("runtime: vulkan\nbackends: [exllama, exllama2]"))
    assert len(refused.value.diagnostics) == 3


def test_more_models_than_layers_is_refused() -> None:
    entries = [{"name": f"m{n}", "source": f"https://e.com/{n}.gguf"} for n in range(101)]
    aikitfile = json.dumps({"apiVersion": "v1alpha1", "models": entries})
    with pytest.raises(AikitError, match="101 models are more than an image has layers for: name at most 100"):
        make(aikitfile)

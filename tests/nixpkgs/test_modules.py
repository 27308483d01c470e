"""What other flakes import: overlay, models, images, the NixOS module, the flake-parts module; evaluated, not built."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from aikit_nix.nix import store
from nixpkgs import plans
from nixpkgs.toolchain import REPOSITORY, NixError, Nixpkgs

SHA256 = "ab" * 32
LOCK = {
    "version": 1,
    "models": [
        {
            "name": "tiny",
            "source": "x",
            "files": [{"path": "/models/tiny.gguf", "url": "https://example.com/tiny.gguf", "sha256": SHA256}],
        },
        {
            "name": "é",
            "files": [{"path": "/models/é.gguf", "url": "https://example.com/%C3%A9.gguf", "sha256": SHA256}],
        },
        {
            "name": "shards",
            "files": [
                {"path": f"/models/s-{number}.gguf", "url": f"https://example.com/{number}", "sha256": SHA256}
                for number in (1, 2)
            ],
        },
    ],
}
AIKITFILE = {"apiVersion": "v1alpha1", "runtime": "avx2", "models": [{"name": "tiny", "source": "x"}]}


def expression(body: str) -> str:
    """A Nix function of nixpkgs, in which `pkgs`, `lock`, `aikitfile` and `aikit` (the root flake) are known."""
    return f"""
      {{ nixpkgs }}:
      let
        input = {{
          _type = "flake";
          outPath = nixpkgs;
          lib = import (nixpkgs + "/lib") // {{
            nixosSystem =
              {{ system, modules }}:
              import (nixpkgs + "/nixos/lib/eval-config.nix") {{ system = null; inherit modules; }};
          }};
          legacyPackages = {{
            x86_64-linux = pkgs;
            aarch64-linux = import nixpkgs {{ system = "aarch64-linux"; config = {{ }}; overlays = [ ]; }};
          }};
        }};
        aikit = (import {REPOSITORY}/flake.nix).outputs {{ self = aikit; nixpkgs = input; }};
        pkgs = import nixpkgs {{
          system = "x86_64-linux";
          config = {{ }};
          overlays = [ aikit.overlays.default ];
        }};
        template =
          name: more:
          let
            inputs = {{
              nixpkgs = input;
              aikit-nix = aikit;
              self = {{ _type = "flake"; outPath = {REPOSITORY}/templates/${{name}}; inherit inputs; }};
            }}
            // more;
          in
          (import {REPOSITORY}/templates/${{name}}/flake.nix).outputs inputs;
        lock = builtins.fromJSON {json.dumps(json.dumps(LOCK))};
        aikitfile = builtins.fromJSON {json.dumps(json.dumps(AIKITFILE))};
      in
      {body}
    """


def value(nixpkgs: Nixpkgs, body: str) -> object:
    argv = ["nix-instantiate", "--eval", "--strict", "--json", "--expr", expression(body)]
    return json.loads(nixpkgs.run([*argv, "--arg", "nixpkgs", str(nixpkgs.folder)]))


def test_the_overlays_packages_can_be_overridden(nixpkgs: Nixpkgs) -> None:
    found = value(
        nixpkgs,
        """
        let
          changed = package: (package.overrideAttrs { postFixup = "true"; }).drvPath != package.drvPath;
          inherit (pkgs) local-ai llama-server-avx2;
          inherit (local-ai) server;
        in
        {
          localai = changed local-ai
            && (local-ai.override { makeWrapper = pkgs.makeBinaryWrapper; }).drvPath != local-ai.drvPath;
          server = changed server && (server.override { protobuf = pkgs.hello; }).drvPath != server.drvPath;
          backend = changed local-ai.llama-cpp && changed local-ai.stablediffusion;
          llama = changed llama-server-avx2
            && (llama-server-avx2.override { blasSupport = true; }).drvPath != llama-server-avx2.drvPath;
          each = map (runtime: pkgs."llama-server-${runtime}".meta.mainProgram) [ "avx" "avx2" "avx512" ];
          tests = map (package: builtins.attrNames package.tests) [ local-ai llama-server-avx2 ];
          meta = [ local-ai.meta.mainProgram local-ai.meta.license.spdxId ];
        }
        """,
    )
    assert found == {
        **dict.fromkeys(("localai", "server", "backend", "llama"), True),
        "each": ["llama-server"] * 3,
        "tests": [["version"], ["version"]],
        "meta": ["local-ai", "MIT"],
    }


def test_the_server_for_cuda_can_be_overridden(nixpkgs: Nixpkgs) -> None:
    found = value(
        nixpkgs,
        """
        let
          cuda = import nixpkgs {
            system = "x86_64-linux";
            config = { cudaSupport = true; allowUnfree = true; };
            overlays = [ aikit.overlays.default ];
          };
          server = cuda.llama-server-cuda;
          unwrapped = map (package: package.unwrapped.drvPath) [
            server
            (server.override { blasSupport = true; })
            (server.overrideAttrs { postFixup = "true"; })
            ((server.overrideAttrs { postFixup = "true"; }).override { blasSupport = true; })
          ];
        in
        [ (builtins.length (cuda.lib.unique unwrapped)) (builtins.attrNames server.tests) ]
        """,
    )
    assert found == [4, ["version"]]


def test_a_model_of_the_lock_is_where_fetch_brings_it(nixpkgs: Nixpkgs) -> None:
    for name in ("tiny", "é"):
        fetched = value(nixpkgs, f'"${{aikit.lib.fetchModel {{ inherit pkgs lock; name = "{name}"; }}}}"')
        assert fetched == str(store.store_path(store.name(f"{name}.gguf"), SHA256))
    shards = nixpkgs.instantiate(expression('aikit.lib.fetchModel { inherit pkgs lock; name = "shards"; }'))
    assert shards[0].endswith("-shards.drv")


def test_an_image_needs_no_plan(nixpkgs: Nixpkgs) -> None:
    (drv,) = nixpkgs.instantiate(expression("(aikit.lib.mkImage { inherit pkgs aikitfile lock; }).oci"))
    requisites = nixpkgs.run(["nix-store", "--query", "--requisites", drv])
    assert "-localai-llama-cpp-avx2-" in requisites
    assert "-tiny.gguf.drv" in requisites


def test_an_image_for_cuda_has_the_plans_capabilities(nixpkgs: Nixpkgs) -> None:
    image = """
      let plan = builtins.fromJSON PLAN; in
      aikit.lib.mkImage {
        inherit plan;
        runtime = "cuda";
        pkgs = import nixpkgs {
          system = "x86_64-linux";
          overlays = [ ];
          config = { cudaSupport = true; allowUnfree = true; } // CONFIG;
        };
      }
    """.replace("PLAN", json.dumps(plans.plan(cudaCapabilities=["8.6"])))
    assert nixpkgs.instantiate(expression(image.replace("CONFIG", "{ inherit (plan) cudaCapabilities; }")), "oci")
    with pytest.raises(NixError, match=r"CUDA capabilities 8\.6: give a nixpkgs"):
        nixpkgs.instantiate(expression(image.replace("CONFIG", "{ }")), "oci")


def test_the_template_for_nixos_serves_a_model(nixpkgs: Nixpkgs) -> None:
    unit = value(
        nixpkgs,
        """
        let
          machine = (template "nixos" { }).nixosConfigurations.machine.extendModules {
            modules = [
              {
                services.aikit = {
                  openFirewall = true;
                  apiKeyFile = "/run/keys/aikit";
                  arguments = [ "--ctx-size" "4096" ];
                };
                nixpkgs.pkgs = pkgs;
                system.stateVersion = "26.05";
                # Of no use here, and not in every copy of nixpkgs.
                disabledModules = [ "hardware/facter/virtualisation.nix" ];
              }
            ];
          };
        in
        {
          unit = machine.config.systemd.units."aikit.service".text;
          ports = machine.config.networking.firewall.allowedTCPPorts;
        }
        """,
    )
    assert isinstance(unit, dict)
    text: str = unit["unit"]
    lock = json.loads((REPOSITORY / "templates/nixos/aikit.lock").read_text())
    (file,) = lock["models"][0]["files"]
    model = store.store_path(Path(file["path"]).name, file["sha256"])
    assert f'bin/llama-server" "--offline" "--model" "{model}"' in text
    assert '"--ctx-size" "4096" --api-key-file %d/keys\n' in text
    assert "LoadCredential=keys:/run/keys/aikit\n" in text
    assert "http://127.0.0.1:8080/health" in text
    for confined in ("DynamicUser=true", "ProtectSystem=strict", "IPAddressDeny=any", "PrivateDevices=true"):
        assert f"{confined}\n" in text
    assert unit["ports"] == [8080]


def test_a_machine_can_be_tried(nixpkgs: Nixpkgs) -> None:
    """As far as without a hypervisor: the test that boots it evaluates."""
    (drv,) = nixpkgs.instantiate(
        expression(
            f"""
            import {REPOSITORY}/tests/nixpkgs/machine.nix {{
              inherit pkgs;
              module = {{
                imports = [
                  aikit.nixosModules.default
                  (nixpkgs + "/nixos/modules/tasks/filesystems/overlayfs.nix")
                ];
                # Some copies of nixpkgs have not all of NixOS.
                _module.check = false;
                disabledModules = [ "hardware/facter/virtualisation.nix" ];
              }};
            }}
            """
        )
    )
    assert drv.endswith("-vm-test-run-aikit.drv")
    requisites = nixpkgs.run(["nix-store", "--query", "--requisites", drv])
    assert "-unit-aikit.service.drv" in requisites
    assert "-tiny.gguf.drv" in requisites


def test_the_docs_machine_listens_on_a_socket(nixpkgs: Nixpkgs, tmp_path: Path) -> None:
    (example,) = re.findall(r"```nix\n(.*?)```", (REPOSITORY / "docs/library.md").read_text(), re.DOTALL)
    (tmp_path / "machine.nix").write_text(example)
    shutil.copy(REPOSITORY / "templates/nixos/aikit.lock", tmp_path)
    unit = value(
        nixpkgs,
        """
        (input.lib.nixosSystem {
          system = null;
          modules = [
            aikit.nixosModules.default
            FOLDER/machine.nix
            {
              nixpkgs.pkgs = pkgs;
              system.stateVersion = "26.05";
              disabledModules = [ "hardware/facter/virtualisation.nix" ];
            }
          ];
        }).config.systemd.units."aikit.service".text
        """.replace("FOLDER", str(tmp_path)),
    )
    assert isinstance(unit, str)
    assert '"--host" "/run/aikit/llama.sock"' in unit
    assert '"--unix-socket" "/run/aikit/llama.sock" "http://localhost/health"' in unit
    assert "RuntimeDirectory=aikit\n" in unit


def machine(services: str, asked: str) -> str:
    """Something of a machine's configuration, with settings of `services.aikit`."""
    return f"""
      (input.lib.nixosSystem {{
        system = null;
        modules = [
          aikit.nixosModules.default
          {{
            services.aikit = {{ enable = true; inherit lock; }} // {services};
            nixpkgs.pkgs = pkgs;
            system.stateVersion = "26.05";
            disabledModules = [ "hardware/facter/virtualisation.nix" ];
          }}
        ];
      }}).config.{asked}
    """


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::1", "[::1]"),
        ("::", "[::1]"),
        ("a.example", "a.example"),
    ],
)
def test_the_server_is_asked_where_it_listens(nixpkgs: Nixpkgs, address: str, asked: str) -> None:
    settings = f'{{ model = "tiny"; address = "{address}"; }}'
    command = value(nixpkgs, machine(settings, "systemd.services.aikit.serviceConfig.ExecStartPost"))
    assert isinstance(command, str)
    assert command.endswith(f'"http://{asked}:8080/health"')


def test_what_the_machine_cannot_serve_is_said(nixpkgs: Nixpkgs) -> None:
    settings = '{ model = "shards"; address = "/run/aikit/llama.sock"; openFirewall = true; }'
    found = value(
        nixpkgs,
        f"map (each: each.message) (builtins.filter (each: !each.assertion) ({machine(settings, 'assertions')}))",
    )
    assert isinstance(found, list)
    assert [message for message in found if "services.aikit" in message] == [
        "services.aikit.model: shards is of several files, and a model of one file can be served",
        "services.aikit.openFirewall: the address /run/aikit/llama.sock is a Unix socket, which has no port",
    ]


def test_the_template_for_flake_parts_has_the_images_outputs(nixpkgs: Nixpkgs) -> None:
    """FLAKE_PARTS names a copy of hercules-ci/flake-parts."""
    folder = os.environ.get("FLAKE_PARTS")
    if not folder or not (Path(folder) / "lib.nix").is_file():
        pytest.skip("FLAKE_PARTS does not name a copy of flake-parts")
    outputs = value(
        nixpkgs,
        """
        let
          parts = (import FOLDER/flake.nix).outputs { nixpkgs-lib = { lib = input.lib; }; };
          flake = template "flake-parts" {
            flake-parts.lib.mkFlake =
              arguments: module: parts.lib.mkFlake arguments { imports = [ module { systems = [ "aarch64-linux" ]; } ]; };
          };
        in
        {
          packages = builtins.mapAttrs (_: package: package.drvPath) flake.packages.x86_64-linux;
          apps = builtins.mapAttrs (_: builtins.attrNames) flake.apps;
          # The image is for avx2.
          arm = flake.packages.aarch64-linux;
        }
        """.replace("FOLDER", folder),
    )
    assert isinstance(outputs, dict)
    assert set(outputs["packages"]) == {"llama", "llama-archive"}
    apps = ["llama-load", "llama-push", "llama-run"]
    assert outputs["apps"] == {"x86_64-linux": apps, "aarch64-linux": []}
    assert outputs["arm"] == {}

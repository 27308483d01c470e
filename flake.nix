{
  description = "Compile an aikitfile into a pinned, reproducible Nix flake that builds an OCI image";

  # The branch of generated flakes; both are pinned in flake.lock (templates/flake.lock).
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixpkgs-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;

      eachSystem =
        outputs:
        lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (system: outputs nixpkgs.legacyPackages.${system});

      inherit (lib.importTOML ./pyproject.toml) project;

      # What pyproject.toml asks for: nixpkgs' hook pythonRuntimeDepsCheck fails the build where one is missing.
      dependencies =
        python:
        [
          python.blake3
          python.click
          python.cryptography
          python.cyclonedx-python-lib
          python.httpx2
          python.jinja2
          python.msgspec
          python.pyyaml
          python.rich
          python.ruamel-yaml
        ]
        ++ python.httpx2.optional-dependencies.socks;

      nixFiles = lib.fileset.toSource {
        root = ./.;
        fileset = lib.fileset.fileFilter (file: file.hasExt "nix") ./.;
      };
    in
    {
      lib = {
        # From a plan to a flake's outputs: { plan, nixpkgs ? null } -> { packages, apps, checks }.
        fromPlan = import ./nix;
        # An image with the caller's own nixpkgs: { pkgs, plan | aikitfile, lock } -> { oci, archive, stream, … }.
        mkImage = import ./nix/mk-image.nix;
        # A model of an aikit.lock as a store path: { pkgs, lock, name } -> derivation.
        fetchModel = import ./nix/lib/fetch-model.nix;
      };

      # local-ai, llama-server-avx, llama-server-avx2, …
      overlays.default = import ./nix/overlay.nix;
      # perSystem.aikit.images.<name>, for flake-parts.
      flakeModules.default = import ./nix/flake-module.nix;
      # services.aikit: a model of an aikit.lock, served under systemd.
      nixosModules.default = import ./nix/nixos-module.nix;

      templates = {
        default = {
          path = ./templates/starter;
          description = "An aikitfile to start from";
          welcomeText = ''
            Edit `aikitfile.yaml`, then run `aikit-nix build`.
          '';
        };
        nixos = {
          path = ./templates/nixos;
          description = "A NixOS machine that serves a model of an aikit.lock";
        };
        flake-parts = {
          path = ./templates/flake-parts;
          description = "Images of aikitfiles among the packages of a flake of flake-parts";
        };
      };

      apps = eachSystem (pkgs: {
        default = {
          type = "app";
          program = lib.getExe self.packages.${pkgs.stdenv.hostPlatform.system}.default;
          meta = { inherit (project) description; };
        };
      });

      packages = eachSystem (pkgs: {
        default = pkgs.python3Packages.buildPythonApplication {
          pname = project.name;
          inherit (project) version;
          pyproject = true;
          src = lib.fileset.toSource {
            root = ./.;
            fileset = lib.fileset.unions [
              ./LICENSE
              ./README.md
              ./docs/aikit-nix.1
              ./generator
              ./nix
              ./pyproject.toml
              ./templates
            ];
          };
          build-system = [ pkgs.python3Packages.hatchling ];
          dependencies = dependencies pkgs.python3Packages;
          pythonImportsCheck = [ "aikit_nix.cli" ];
          meta = {
            inherit (project) description;
            license = lib.licenses.mit;
            mainProgram = "aikit-nix";
          };
        };
      });

      devShells = eachSystem (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.bubblewrap
            pkgs.nixfmt-rs
            pkgs.check-jsonschema
            pkgs.mypy
            pkgs.ruff
            pkgs.skopeo
            # nixpkgs has no lightkube, which the tests of manifests import.
            (pkgs.python3.withPackages (
              python:
              dependencies python
              ++ [
                python.gguf
                python.hatchling
                python.hypothesis
                python.jsonschema
                python.openai
                python.pytest
                python.pytest-cov
                python.pytest-xdist
                python.types-pyyaml
              ]
            ))
          ];
          env.PYTHONPATH = "generator";
        };
      });

      checks = eachSystem (pkgs: {
        # What generated flakes say, of every kind: evaluated, as compiling it takes hours.
        plans =
          let
            plan = lib.importJSON ./tests/fixtures/plan.json;
            kinds = [
              { }
              { engine = "localai"; }
              {
                engine = "localai";
                backends = [ "stablediffusion" ];
              }
              {
                packages = "debian";
                systems.x86_64-linux = {
                  default = "avx2";
                  runtimes = [ "avx2" ];
                };
              }
            ];
            outputs =
              kind:
              self.lib.fromPlan {
                plan = plan // kind;
                inherit nixpkgs;
              };
            images = lib.concatMap (
              kind: lib.mapAttrsToList (_: packages: packages.default) (outputs kind).packages
            ) kinds;
          in
          pkgs.writeText "check-plans" (
            lib.concatMapStrings (image: builtins.unsafeDiscardStringContext "${image.drvPath}\n") images
          );
        package = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        machine = import ./tests/nixpkgs/machine.nix {
          inherit pkgs;
          module = self.nixosModules.default;
        };
        format = pkgs.runCommand "check-format" { nativeBuildInputs = [ pkgs.nixfmt-rs ]; } ''
          find ${nixFiles} -name '*.nix' -exec nixfmt --check {} +
          touch $out
        '';
      });

      formatter = eachSystem (pkgs: pkgs.nixfmt-tree.override { nixfmtPackage = pkgs.nixfmt-rs; });
    };
}

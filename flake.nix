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

      inherit (lib.importTOML ./pyproject.toml) project dependency-groups;

      # What pyproject.toml asks for, out of nixpkgs' Python packages; what is a program there is in the shell by itself.
      programs = [ "check-jsonschema" ];
      packagesOf =
        python: requirements:
        map (name: python.${name}) (
          lib.subtractLists programs (
            map (requirement: builtins.head (builtins.match "([a-z0-9-]+).*" requirement)) (
              builtins.filter builtins.isString requirements
            )
          )
        );

      nixFiles = lib.fileset.toSource {
        root = ./.;
        fileset = lib.fileset.fileFilter (file: file.hasExt "nix") ./.;
      };
    in
    {
      lib = {
        # From a plan to a flake's outputs: { plan, nixpkgs ? null } -> { packages, apps, checks }.
        fromPlan = import ./nix;
        # One image with the caller's own nixpkgs: { pkgs, plan, runtime ? … } -> { image, oci, stream, … }.
        mkImage = import ./nix/mk-image.nix;
      };

      templates.default = {
        path = ./templates/starter;
        description = "An aikitfile to start from";
        welcomeText = ''
          Edit `aikitfile.yaml`, then run `aikit-nix gen && nix build path:flake`.
        '';
      };

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
              ./generator
              ./nix
              ./pyproject.toml
              ./templates
            ];
          };
          build-system = [ pkgs.python3Packages.hatchling ];
          dependencies = packagesOf pkgs.python3Packages project.dependencies;
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
            (pkgs.python3.withPackages (
              python: packagesOf python (project.dependencies ++ dependency-groups.demo ++ dependency-groups.dev)
            ))
            pkgs.skopeo
          ]
          ++ lib.attrVals programs pkgs;
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
        format = pkgs.runCommand "check-format" { nativeBuildInputs = [ pkgs.nixfmt-rs ]; } ''
          find ${nixFiles} -name '*.nix' -exec nixfmt --check {} +
          touch $out
        '';
      });

      formatter = eachSystem (pkgs: pkgs.nixfmt-tree.override { nixfmtPackage = pkgs.nixfmt-rs; });
    };
}

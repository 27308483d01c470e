# Real nixpkgs on the compiler and the tools of the Debian machine under it: its own functions (stdenv, lib,
# dockerTools, writers, the cmake and Go builders) run without a binary cache and without bootstrapping a compiler.
# Takes the place of nixpkgs' default.nix: same arguments, plus the checkout. x86_64-linux only.
#
# Builds see the machine through the sandbox-paths of ./toolchain.py. A change to `host`, `libraries` or the hook
# compiles everything anew.
{
  nixpkgs,
  # Where a Go toolchain lies; Debian's own is often too old.
  goRoot,
  overlays ? [ ],
  ...
}@args:

let
  # From the path: an overlay whose attribute names need its own package set would never end.
  lib = import (nixpkgs + "/lib");
  nativeStdenv = nixpkgs + "/pkgs/stdenv/native";

  # Shared libraries that a compiled program may take along, by soname; the C library's own folder comes first.
  libraries = [
    "ld-linux-x86-64.so.2"
    "libc.so.6"
    "libcrypto.so.3"
    "libdl.so.2"
    "libgcc_s.so.1"
    "libgomp.so.1"
    "libm.so.6"
    "libpthread.so.0"
    "libresolv.so.2"
    "librt.so.1"
    "libssl.so.3"
    "libstdc++.so.6"
    "libz.so.1"
  ];

  # Copies, because what goes into an image cannot point at the machine's /usr.
  runtimeLibraries =
    stdenv:
    stdenv.mkDerivation {
      name = "debian-libraries";
      dontUnpack = true;
      dontFixup = true;
      installPhase = ''
        mkdir -p $out/lib
        for library in ${toString libraries}; do
          cp -L /lib/x86_64-linux-gnu/$library $out/lib/ || cp -L /usr/lib/x86_64-linux-gnu/$library $out/lib/
          chmod u+w $out/lib/$library
          # Among themselves they are found by their own folder.
          case $library in
            ld-linux* | libc.so*) ;;
            *) patchelf --set-rpath '$ORIGIN' $out/lib/$library ;;
          esac
        done
      '';
    };

  # After every build: each dynamic ELF file finds its loader and libraries in the store.
  takeLibrariesAlong =
    stdenv:
    stdenv.mkDerivation {
      name = "take-libraries-along-hook";
      dontUnpack = true;
      libraries = runtimeLibraries stdenv;
      installPhase = ''
        mkdir -p $out/nix-support
        cat > $out/nix-support/setup-hook <<EOF
        takeLibrariesAlong() {
          # A fixed output may not name another store path.
          [ -z "\''${outputHash:-}" ] || return 0
          local file
          while IFS= read -r -d "" file; do
            isELF "\$file" || continue
            if patchelf --print-interpreter "\$file" >/dev/null 2>&1; then
              patchelf --set-interpreter $libraries/lib/ld-linux-x86-64.so.2 "\$file"
            fi
            if patchelf --print-needed "\$file" 2>/dev/null | grep -q .; then
              patchelf --add-rpath $libraries/lib "\$file"
            fi
          done < <(find "\$prefix" -type f \( -perm -0100 -o -name '*.so*' \) -print0)
        }
        fixupOutputHooks+=(takeLibrariesAlong)

        # It needs a bash named sh.
        noAuditTmpdir=1

        # Flags of compilers newer than Debian's gcc 12.
        : "\''${NIX_HARDENING_ENABLE=bindnow format fortify pic relro stackprotector}"
        export NIX_HARDENING_ENABLE="\''${NIX_HARDENING_ENABLE//strictflexarrays[0-9]/}"
        EOF
      '';
    };

  hostOverlay =
    final: prev:
    let
      # A package that is links to the machine's programs, with nixpkgs' own setup hooks where it has some.
      host =
        {
          name,
          programs ? [ name ],
          hooks ? [ ],
          passthru ? { },
          links ? { },
        }:
        lib.fix (
          self:
          final.stdenvNoCC.mkDerivation {
            pname = "host-${name}";
            version = "0";
            dontUnpack = true;
            setupHooks = hooks;
            installPhase = ''
              mkdir -p $out/bin
              for program in ${toString programs}; do
                ln -s "$(type -P "$program")" $out/bin/
              done
            ''
            + lib.concatStrings (
              lib.mapAttrsToList (
                link: target: "mkdir -p $(dirname $out/${link}); ln -s ${target} $out/${link}\n"
              ) links
            );
            passthru = {
              override = _: self;
              dev = self;
              lib = self;
            }
            // passthru;
            meta.mainProgram = name;
          }
        );

      byName = path: nixpkgs + "/pkgs/by-name/${path}";

      python = host {
        name = "python3";
        passthru = {
          interpreter = "/usr/bin/python3";
          executable = "python3";
          isPy3 = true;
          isPy3k = true;
          withPackages = _: python;
          pythonOnBuildForHost = python;
          pkgs = {
            inherit python;
            flake8 = host { name = "flake8"; };
          };
        };
      };

      # nixpkgs' Go is patched to name the right loader. Here it also names where the libraries are, because the
      # patchelf of Debian 12 breaks Go programs in which it has to change something.
      goProgram =
        let
          inherit (lib.last final.stdenv.extraNativeBuildInputs) libraries;
        in
        final.writeScript "go" ''
          #!/bin/sh
          for argument do
            shift
            case $argument in
              -ldflags=*) argument="$argument -I ${libraries}/lib/ld-linux-x86-64.so.2 -r ${libraries}/lib" ;;
            esac
            set -- "$@" "$argument"
          done
          exec ${goRoot}/bin/go "$@"
        '';

      go = host {
        name = "go";
        programs = [ ];
        links = {
          "bin/go" = goProgram;
          "bin/gofmt" = "${goRoot}/bin/gofmt";
          "share/go" = goRoot;
        };
        passthru = {
          GOOS = "linux";
          GOARCH = "amd64";
          CGO_ENABLED = 1;
        };
      };
    in
    {
      bash = host {
        name = "bash";
        passthru.shellPath = "/bin/bash";
      };
      bashNonInteractive = final.bash;
      runtimeShell = "/bin/bash";
      runtimeShellPackage = final.bash;

      coreutils = host {
        name = "coreutils";
        programs = [
          "cat"
          "chmod"
          "cp"
          "date"
          "env"
          "head"
          "ln"
          "ls"
          "mkdir"
          "mv"
          "rm"
          "sort"
          "tr"
          "uniq"
        ];
      };

      python3 = python;
      python313 = python;
      # Only compared with.
      pypy2Packages = { };
      pypy3Packages = { };

      cmake = host {
        name = "cmake";
        programs = [
          "cmake"
          "ctest"
        ];
        hooks = [
          (byName "cm/cmake/setup-hook.sh")
          # nixpkgs' cmake is patched to read its own variable.
          (final.writeText "cmake-prefix-path-hook" ''
            exportCmakePrefixPath() { export CMAKE_PREFIX_PATH="''${NIXPKGS_CMAKE_PREFIX_PATH:-}"; }
            preConfigureHooks+=(exportCmakePrefixPath)
          '')
        ];
      };
      ninja = host {
        name = "ninja";
        hooks = [ (byName "ni/ninja/setup-hook.sh") ];
      };

      # Sources come by their hashes from the store; this only has to evaluate.
      gitMinimal = host { name = "git"; };

      inherit go;
      go_1_26 = go;

      cacert = final.runCommand "host-cacert" { } ''
        mkdir -p $out/etc/ssl/certs
        cp -L /etc/ssl/certs/ca-certificates.crt $out/etc/ssl/certs/ca-bundle.crt
      '';
    }
    // lib.genAttrs [
      "dash"
      "fakeroot"
      "jq"
      "lndir"
      "patchelf"
      "pigz"
      "pkg-config"
      "xz"
      "zstd"
    ] (name: host { inherit name; });

  stages =
    stageArgs:
    let
      native = import nativeStdenv (removeAttrs stageArgs [ "crossOverlays" ]);
    in
    # The third stage would only compile xz and patchelf, which the machine has.
    [
      (builtins.elemAt native 0)
      (
        previous:
        let
          stage = builtins.elemAt native 1 previous;
        in
        stage
        // {
          stdenv =
            stage.stdenv.override (old: {
              extraNativeBuildInputs = old.extraNativeBuildInputs ++ [ (takeLibrariesAlong previous.stdenv) ];
            })
            // {
              inherit (previous) fetchurl;
            };
        }
      )
    ];
in
import nixpkgs (
  removeAttrs args [
    "nixpkgs"
    "goRoot"
  ]
  // {
    overlays = [ hostOverlay ] ++ overlays;
    stdenvStages = stages;
  }
)

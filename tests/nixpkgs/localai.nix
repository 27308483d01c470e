# What LocalAI's derivations need besides debian-toolchain.nix: gRPC, protobuf, Node.js and the Go plugins of protoc.
# An overlay. It takes a folder with bin/prefetch-npm-deps: nixpkgs' program, compiled on this machine from the
# checkout (it is Rust, and the sandbox has no compiler for it).
{ prefetchNpmDeps }:

final: prev:
let
  inherit (final) lib;

  # Links into the machine, and what nixpkgs' own expressions ask of such a package.
  links =
    name: targets: passthru:
    lib.fix (
      self:
      final.stdenvNoCC.mkDerivation {
        inherit name;
        # Only asked for: npm's hook wants Node's source, for addons in C++.
        src = ./protoc-plugins;
        dontUnpack = true;
        installPhase = lib.concatStrings (
          lib.mapAttrsToList (link: target: ''
            mkdir -p $out/$(dirname ${link})
            ln -s ${target} $out/${link}
          '') targets
        );
        passthru = {
          override = _: self;
          dev = self;
        }
        // passthru;
      }
    );

  # A library that is found below /usr.
  system = name: links "host-${name}" { "share/${name}" = "/usr/include"; } { };

  protocPlugins = final.buildGoModule {
    name = "protoc-plugins";
    src = ./protoc-plugins;
    vendorHash = "sha256-Wp3gyhsqiz8no50MJ9ydJ9jp6fBmtAs5srhjdHHoSoA=";
    buildPhase = ''
      go install tool
    '';
  };
in
{
  protoc-gen-go = protocPlugins;
  protoc-gen-go-grpc = protocPlugins;

  protobuf = links "host-protobuf" {
    "bin/protoc" = "/usr/bin/protoc";
    # Debian's protobuf has no CMake package of its own, but CMake knows where to find it.
    "lib/cmake/protobuf/protobuf-config.cmake" =
      final.writeText "protobuf-config.cmake" "find_package(Protobuf MODULE REQUIRED)\n";
  } { };
  grpc = links "host-grpc" {
    "bin/grpc_cpp_plugin" = "/usr/bin/grpc_cpp_plugin";
    "lib/cmake/grpc" = "/usr/lib/x86_64-linux-gnu/cmake/grpc";
  } { };
  abseil-cpp = system "abseil-cpp";
  openssl = system "openssl";
  re2 = links "host-re2" { "lib/libre2.so.9" = "/usr/lib/x86_64-linux-gnu/libre2.so.9"; } { };

  nodejs =
    links "host-nodejs"
      {
        "bin/node" = "/usr/bin/node";
        "bin/npm" = "/usr/bin/npm";
        "bin/npx" = "/usr/bin/npx";
        "lib/node_modules" = "/usr/lib/node_modules";
      }
      {
        version = "20";
        python = final.python3;
        meta.platforms = lib.platforms.linux;
      };
  prefetch-npm-deps = links "host-prefetch-npm-deps" {
    "bin/prefetch-npm-deps" = "${/. + prefetchNpmDeps}/bin/prefetch-npm-deps";
  } { };

  # pkg-config, diff: the machine's.
  diffutils = links "host-diffutils" { "bin/diff" = "/usr/bin/diff"; } { };
}

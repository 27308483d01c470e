# The engine `llama-server`: nixpkgs' llama.cpp, compiled for one runtime and stripped down to its server.
{ pkgs, runtime }:

let
  inherit (pkgs) lib;
  inherit (lib) cmakeBool;
  runtimes = import ../runtimes.nix;

  # null: nixpkgs' choice, one CPU backend for each type of processor, picked at run time.
  wanted = runtimes.${runtime}.instructions or null;

  # By name: to compare derivations is to evaluate all that Node.js is made of.
  without = unwanted: builtins.filter (input: !builtins.elem (lib.getName input) unwanted);

  cuda = runtime == "cuda";

  compiled =
    (pkgs.llama-cpp.override {
      cudaSupport = cuda;
      cpuArchDynamicDispatch = wanted == null;
      # ggml's own kernels are what the runtimes are about, and the image stays small.
      blasSupport = false;
    }).overrideAttrs
      (
        final: old: {
          pname = "llama-server-${runtime}";
          outputs = [ "out" ];

          # The web interface is left out: it would bring Node.js and hundreds of npm packages into the build.
          # spirv-headers is for Vulkan.
          nativeBuildInputs = without [
            "nodejs"
            "npm-config-hook"
            "spirv-headers"
          ] old.nativeBuildInputs;
          npmDeps = null;
          npmDepsHash = null;
          # What comes before the interface is compiled, in its own folder.
          preConfigure = lib.head (lib.splitString "pushd" old.preConfigure);

          # Without openssl: the models are in the image, the server downloads nothing.
          buildInputs = without [ "openssl" ] old.buildInputs;

          cmakeFlags =
            old.cmakeFlags
            ++ [
              (cmakeBool "LLAMA_BUILD_UI" false)
              (cmakeBool "LLAMA_USE_PREBUILT_UI" false)
              (cmakeBool "LLAMA_BUILD_APP" false)
              (cmakeBool "LLAMA_OPENSSL" false)
              # The backends are loaded at run time: on a processor that lacks the runtime's instructions the server
              # says so instead of dying of one, and without a GPU driver CUDA's steps aside.
              (cmakeBool "GGML_BACKEND_DL" true)
            ]
            ++ lib.optionals (wanted != null) (
              map (set: cmakeBool "GGML_${set}" (builtins.elem set wanted)) (
                runtimes.avx512.instructions ++ [ "AVX_VNNI" ]
              )
            );

          # Of the many programs only the server, with what it links and the backends that it looks for beside itself.
          postInstall = ''
            find $out/bin -type f ! -name llama-server ! -name '*.so*' -delete
            find $out/bin -xtype l -delete
            rm -rf $out/include $out/lib/cmake $out/lib/pkgconfig $out/share
            find $out/lib -name 'lib*-impl.so*' ! -name 'libllama-server-impl.so*' -delete
          '';

          # Hours on a small machine. Null and not an empty list: it is then no part of the derivation.
          requiredSystemFeatures = if cuda then [ "big-parallel" ] else null;

          passthru = old.passthru // {
            tests.version = pkgs.testers.testVersion {
              package = final.finalPackage;
              inherit (final) version;
            };
          };

          meta = old.meta // {
            mainProgram = "llama-server";
          };
        }
      );

  package =
    if cuda then
      import ./with-cudart.nix {
        inherit pkgs;
        package = compiled;
      }
    else
      compiled;
in
{
  inherit package;
  name = "llama-server";
  bin = "${package}/bin/llama-server";
  inherit (compiled) version;
  license = package.meta.license.spdxId;
  env = { };
}

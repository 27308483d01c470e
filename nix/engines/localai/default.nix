# LocalAI compiled from source for one runtime, with the backends that the plan asks for.
#
# pkgs     nixpkgs; for cuda with cudaSupport and unfree packages allowed
# runtime  cpu, avx, avx2, avx512 or cuda
# plan     the parsed plan.json
{
  pkgs,
  runtime,
  plan,
}:

let
  inherit (pkgs) lib;
  pins = builtins.fromJSON (builtins.readFile ../../pins.json);
  runtimes = import ../../runtimes.nix;

  instructions = import ./instructions.nix {
    inherit lib;
    wanted = runtimes.${runtime}.instructions or null;
    known = runtimes.avx512.instructions;
  };

  source = pkgs.fetchFromGitHub {
    owner = "mudler";
    repo = "LocalAI";
    inherit (pins.localai) tag hash;
  };

  server = pkgs.callPackage ./server.nix {
    inherit source;
    pin = pins.localai;
  };

  llamaCpp = import ./bundle.nix {
    inherit pkgs;
    program = pkgs.callPackage ./llama-cpp.nix {
      inherit source runtime instructions;
      pin = pins.llama-cpp;
    };
  };

  stablediffusion =
    let
      compiled = pkgs.callPackage ./stablediffusion.nix {
        inherit source runtime instructions;
        pin = pins.stablediffusion;
        ggmlPin = pins.stablediffusion-ggml;
      };
    in
    if runtime == "cuda" then
      import ../with-cudart.nix {
        inherit pkgs;
        package = compiled;
      }
    else
      compiled;

  exllama2 = import ./exllama2 { inherit pkgs source; };

  # Each backend is a folder with a run.sh, which is the program itself: no shell comes along.
  folders = {
    llama-cpp."run.sh" = "${llamaCpp}/bin/llama-cpp-grpc-server";
  }
  // lib.optionalAttrs (builtins.elem "stablediffusion" plan.backends) {
    stablediffusion-ggml = {
      "run.sh" = "${server.backends}/bin/stablediffusion-ggml";
      # Where the program looks for it: in its working directory, this folder.
      "libgosd-fallback.so" = "${stablediffusion}/lib/libgosd.so";
    };
  }
  # By either name: it loads the models of both.
  // lib.optionalAttrs (builtins.elem "exllama2" plan.backends) (
    lib.genAttrs [ "exllama" "exllama2" ] (_: {
      "run.sh" = exllama2.run;
    })
  );

  # LocalAI ignores a backend whose folder is a symlink; links inside are fine.
  backends = pkgs.linkFarm "localai-backends" (
    lib.concatMapAttrs (
      folder: lib.mapAttrs' (file: target: lib.nameValuePair "${folder}/${file}" target)
    ) folders
  );
in
{
  name = "local-ai";
  bin = "${server}/bin/local-ai";
  version = "${pins.localai.tag} (${pins.localai.date})";
  license = server.meta.license.spdxId;

  package = pkgs.linkFarm "localai" {
    "bin/local-ai" = "${server}/bin/local-ai";
    inherit backends;
  };

  # For tests and measurements.
  parts = {
    inherit
      server
      backends
      exllama2
      stablediffusion
      ;
    llama-cpp = llamaCpp;
  };

  env = {
    LOCALAI_MODELS_PATH = "/models";
    LOCALAI_BACKENDS_SYSTEM_PATH = "${backends}";

    # Nothing is fetched at run time unless the user sets these otherwise.
    LOCALAI_GALLERIES = "[]";
    LOCALAI_BACKEND_GALLERIES = "[]";
    LOCALAI_AUTOLOAD_GALLERIES = "false";
    LOCALAI_AUTOLOAD_BACKEND_GALLERIES = "false";

    # The root is read-only. A backend that the user installs at run time lands here too.
    LOCALAI_BACKENDS_PATH = "/tmp/localai/backends";
    LOCALAI_CONFIG_DIR = "/tmp/localai/configuration";
    LOCALAI_DATA_PATH = "/tmp/localai/data";
  };
}

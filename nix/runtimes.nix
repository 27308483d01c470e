# What a runtime means, for every engine and package set.
#
# instructions  the instruction sets that ggml is compiled for, as its CMake options are named (GGML_AVX …); nothing else
#               is on. Not for what takes the best for the processor at run time, nor for what only Debian has.
# debian        which of Debian's ready-made backends of ggml are in the image. Debian has the CPU backend once per processor
#               type: of several ggml takes the best that the processor has, a single one fixes the instruction set.
# env           what the image's environment says
let
  avx = [
    "SSE42"
    "AVX"
  ];
  avx2 = avx ++ [
    "F16C"
    "FMA"
    "AVX2"
    "BMI2"
  ];
  avx512 = avx2 ++ [ "AVX512" ];
in
{
  avx = {
    instructions = avx;
    debian = [ "cpu-sandybridge" ];
    env = { };
  };

  avx2 = {
    instructions = avx2;
    debian = [ "cpu-haswell" ];
    env = { };
  };

  avx512 = {
    instructions = avx512;
    debian = [ "cpu-skylakex" ];
    env = { };
  };

  # What an aikitfile that names no runtime becomes on aarch64.
  cpu = {
    debian = [ "cpu-*" ];
    env = { };
  };

  cuda = {
    # Without a GPU ggml falls back to the processor.
    debian = [
      "cuda"
      "cpu-*"
    ];
    env = {
      # AIKit's own, read by the NVIDIA container toolkit.
      NVIDIA_REQUIRE_CUDA = "cuda>=12.0";
      NVIDIA_DRIVER_CAPABILITIES = "compute,utility";
      NVIDIA_VISIBLE_DEVICES = "all";
      BUILD_TYPE = "cublas";
      # Where the driver's libcuda.so.1 may be mounted: the NVIDIA container toolkit's legacy mode takes /usr/lib64, or
      # Debian's folder where it finds a Debian; CDI the host's own folder (Debian, Fedora, Arch, WSL; NixOS's is in
      # the run path already); Kubernetes device plugins /usr/local/nvidia. Nix's glibc does not read
      # /etc/ld.so.cache, and these folders hold nothing else in this image.
      LD_LIBRARY_PATH = builtins.concatStringsSep ":" [
        "/usr/lib/x86_64-linux-gnu"
        "/usr/lib/aarch64-linux-gnu"
        "/usr/lib64"
        "/usr/lib"
        "/usr/lib/wsl/lib"
        "/usr/local/nvidia/lib64"
      ];
    };
  };

  # AMD's GPUs: `docker run --device /dev/kfd --device /dev/dri`.
  rocm = {
    debian = [
      "hip"
      "cpu-*"
    ];
    env = { };
  };

  # Any vendor's GPU. Mesa's drivers are in the image (`--device /dev/dri`); the NVIDIA container toolkit mounts its own.
  vulkan = {
    debian = [
      "vulkan"
      "cpu-*"
    ];
    env = {
      NVIDIA_DRIVER_CAPABILITIES = "compute,graphics,utility";
      NVIDIA_VISIBLE_DEVICES = "all";
    };
  };
}

# What the image's environment says for each runtime, whatever the engine. The engines compile for it.
{
  avx = { };
  avx2 = { };
  avx512 = { };

  # What an aikitfile that names no runtime becomes on aarch64: the plain build for the platform's baseline.
  cpu = { };

  cuda = {
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
}

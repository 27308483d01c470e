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
    # Where the toolkit mounts the driver's libcuda.so.1: Debian's and Fedora's library folders (legacy mode and
    # CDI) and the folder of Kubernetes device plugins. Nix's glibc does not read /etc/ld.so.cache, and these
    # folders hold nothing else in this image.
    LD_LIBRARY_PATH = "/usr/lib/x86_64-linux-gnu:/usr/lib/aarch64-linux-gnu:/usr/lib64:/usr/local/nvidia/lib64";
  };
}

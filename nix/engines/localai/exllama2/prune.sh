# Removes from a folder of unpacked wheels (the working directory) what is there to compile with, and the shared libraries
# that nothing in it is linked with.
set -euo pipefail
shopt -s nullglob

declare -A others=()
for file in torch/lib/*.so* nvidia/*/lib/*.so*; do
  others[${file##*/}]=$file
done

# What Python loads itself, and what torch's libraries load by name: cuDNN's parts, and the compiler of small kernels.
pending=(torch/_C.*.so torch/lib/libtorch_global_deps.so torch/lib/libcaffe2_nvrtc.so
  nvidia/cudnn/lib/*.so* nvidia/cu13/lib/libnvrtc-builtins.so*)
while [ ${#pending[@]} -gt 0 ]; do
  file=${pending[-1]}
  unset 'pending[-1]' "others[${file##*/}]"
  for library in $(patchelf --print-needed "$file"); do
    [ -z "${others[$library]:-}" ] || pending+=("${others[$library]}")
    unset "others[$library]"
  done
done
rm -- "${others[@]}"

# torch does not start without its manager of shared memory.
find torch/bin ! -name torch_shm_manager -type f -delete
rm -r torch/include torch/share/cmake nvidia/*/include exllamav2/exllamav2_ext

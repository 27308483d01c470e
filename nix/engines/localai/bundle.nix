# A program with copies of the shared libraries that it needs and no other tie to the store than glibc (and CUDA, which
# is large and shared): the image carries none of gRPC's compilers, headers and data.
{
  pkgs,
  program,
}:

let
  # nixpkgs' re2 pulls in 35 MB of Unicode tables for a syntax that gRPC never uses.
  re2 = pkgs.re2.overrideAttrs (old: {
    cmakeFlags = (old.cmakeFlags or [ ]) ++ [
      (pkgs.lib.cmakeBool "RE2_USE_ICU" false)
      (pkgs.lib.cmakeBool "RE2_BUILD_TESTING" false)
    ];
    doCheck = false;
  });
in
pkgs.stdenvNoCC.mkDerivation {
  pname = pkgs.lib.removeSuffix "-unwrapped" program.pname;
  inherit (program) version meta;

  dontUnpack = true;
  dontStrip = true;
  nativeBuildInputs = [
    pkgs.patchelf
  ]
  # For NixOS, whose driver lies elsewhere than in a container.
  ++ pkgs.lib.optional pkgs.config.cudaSupport pkgs.autoAddDriverRunpath;

  installPhase = ''
    runHook preInstall
    install -D ${pkgs.lib.getExe program} --target-directory $out/bin
    program=$out/bin/${program.meta.mainProgram}
    interpreter=$(patchelf --print-interpreter $program)
    libc=$(dirname $interpreter)
    rpath=$out/lib:$libc
    mkdir $out/lib
    while read -r soname _ library _; do
      case $soname in
        # glibc's own; and what only the other re2 needs.
        /* | linux-vdso.* | ld-linux* | libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | libicu*) ;;
        libcuda.so.1) ;;
        libcu* | libnv*) rpath+=:$(dirname $library) ;;
        libre2.so.*) install ${re2.out}/lib/$soname $out/lib ;;
        *) install $library $out/lib/$soname ;;
      esac
    done < <($interpreter --list $program)
    for file in $program $out/lib/*; do
      # As nuke-refs does: the length stays, the reference goes.
      LC_ALL=C sed -i -E "s|$NIX_STORE/[0-9a-z]{32}-|$NIX_STORE/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-|g" $file
      patchelf --set-rpath $rpath $file
    done
    patchelf --set-interpreter $interpreter $program
    runHook postInstall
  '';

  disallowedReferences = [
    pkgs.grpc
    pkgs.openssl
    pkgs.protobuf
    program
  ];

  passthru.unwrapped = program;
}

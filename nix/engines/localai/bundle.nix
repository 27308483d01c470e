# A program with copies of the shared libraries that it needs and no other tie to the store than glibc (and cuBLAS,
# which is large and shared): the image carries none of gRPC's compilers, CUDA's headers and the like.
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

  program = pkgs.lib.getExe program;
  re2 = re2.out;
  installPhase = ''
    runHook preInstall
    bash ${./bundle.sh}
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

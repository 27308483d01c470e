# What runs while an image of Debian's files is built, and is not in it: the programs, and the shell functions of scripts.
#
# lock          the parsed lock.json
# architecture  system -> Debian's name for it
# buildSystem   the system whose programs are to run: `system` in the result, or x86-64 where there is no seed for it
#
# A sandbox starts empty, so programs come in three steps:
#   seed     a program of 1 KB (seed/seed.c) that opens a .deb; carried as text, which Nix's own builtin unpacks
#   busybox  Debian's busybox-static: a shell, ar, tar, xz
#   tools    Debian's Python and patchelf, each started by the glibc beside it
{
  lock,
  architecture,
  buildSystem,
}:

let
  seeds = {
    x86_64-linux = ./seed/x86_64-linux.txt;
    aarch64-linux = ./seed/aarch64-linux.txt;
  };
  system = if seeds ? ${buildSystem} then buildSystem else "x86_64-linux";
  pinned = lock.architectures.${architecture.${system}};

  # Made here or fetched from the mirror in a moment: no binary cache has it (asking one that cannot be reached takes
  # seconds), and no remote builder is worth sending the models to.
  local = {
    inherit system;
    allowSubstitutes = false;
    preferLocalBuild = true;
  };

  # One of Nix's own builders, which unpacks $src; what lies in it becomes $out/$channelName.
  unpacked =
    name: src:
    derivation (
      local
      // {
        inherit name src;
        system = "builtin";
        builder = "builtin:unpack-channel";
        channelName = name;
      }
    );

  seed = unpacked "seed" (
    builtins.path {
      name = "seed.txt";
      path = seeds.${system};
    }
  );

  # A file by its hash, through Nix's own downloader.
  fetchurl =
    {
      name,
      url,
      sha256,
    }:
    derivation {
      inherit name url;
      urls = [ url ];
      system = "builtin";
      builder = "builtin:fetchurl";
      outputHashMode = "flat";
      outputHashAlgo = "sha256";
      outputHash = sha256;
      unpack = false;
      executable = false;
      preferLocalBuild = true;
      impureEnvVars = [
        "http_proxy"
        "https_proxy"
        "ftp_proxy"
        "all_proxy"
        "no_proxy"
      ];
    };

  # Where a .deb comes from that `aikit-nix fetch` has not brought: the archive in which Debian's files stay for good, or
  # with `--impure` the mirror that the environment names. By http, as the hash says what is right.
  mirror =
    let
      named = builtins.match "[ \t\n]*([^ \t\n]+).*" (builtins.getEnv "AIKIT_DEBIAN_MIRROR");
    in
    if named == null then
      "http://snapshot.debian.org/archive/debian/${lock.snapshot}"
    else if builtins.match ".*@.*" (builtins.head named) != null then
      throw "AIKIT_DEBIAN_MIRROR has a user or a password, which every user of this machine could read: name one that needs none"
    else
      builtins.head named;

  # One .deb. Its store path follows from its name and hash alone, wherever it comes from.
  deb =
    package:
    fetchurl {
      name = builtins.replaceStrings [ "~" ":" "%" ] [ "-" "-" "-" ] (baseNameOf package.filename);
      url = "${mirror}/${package.filename}";
      inherit (package) sha256;
    };

  debsOf = { packages, ... }: map (name: deb packages.${name});

  busybox = unpacked "busybox" (
    derivation (
      local
      // {
        name = "busybox.tar.xz";
        builder = "${seed}/seed";
        args = [
          (deb pinned.packages.busybox-static)
          "data.tar.xz"
          (placeholder "out")
        ];
      }
    )
  );

  shell = derivation (
    local
    // {
      name = "shell";
      builder = "${busybox}/busybox/bin/busybox";
      args = [
        "sh"
        "-ec"
        ''
          busybox=${busybox}/busybox/bin/busybox
          $busybox mkdir -p $out/bin
          $busybox --install -s $out/bin
        ''
      ];
    }
  );

  # nixpkgs' runCommand, with busybox for coreutils.
  runCommand =
    name: env: script:
    derivation (
      local
      // {
        inherit name;
        builder = "${shell}/bin/sh";
        args = [
          "-c"
          ''
            set -e -o pipefail
            PATH=${shell}/bin
            for input in $nativeBuildInputs; do PATH=$input/bin:$PATH; done
            export PATH HOME=/homeless-shelter
            umask 022
            ${script}
          ''
        ];
      }
      // env
    );

  writeText =
    name: text:
    runCommand name {
      inherit text;
      passAsFile = [ "text" ]; # an environment variable may hold 128 KiB at most
    } "cat $textPath > $out";

  # `unpack FOLDER DEB...`; FOLDER/control/PACKAGE then has what each package says of itself.
  unpack = ''
    unpack() {
      root=$1
      shift
      for deb; do
        mkdir -p $root control
        ar p $deb data.tar.xz | xz -dc | tar -x -C $root
        ar p $deb control.tar.xz | xz -dc | tar -x -C control
        package=$(sed -n 's/^Package: //p' control/control)
        mkdir -p $root/control
        mv control $root/control/$package
      done
    }
  '';

  # `needed FILE`: what a library or program of `root` is linked with, as paths in `root`. The driver's libcuda is the host's.
  needed = ''
    needed() {
      for name in $(patchelf --print-needed $1); do
        if [ $name = libcuda.so.1 ]; then continue; fi
        found=$(find root/usr/lib -name $name | sort | head -n 1)
        if [ -z "$found" ]; then
          echo "error: $1 needs $name, which no pinned package has" >&2
          return 1
        fi
        echo $found
      done
    }
  '';

  # `start PROGRAM NAME [OPTION]`: a script $out/bin/NAME that has the glibc in $out/lib start the PROGRAM. Build tools are
  # started this way because patchelf breaks a program that is not position-independent, as Debian's Python.
  start = ''
    start() {
      mkdir -p $out/bin
      cat > $out/bin/$2 <<EOF
    #!${shell}/bin/sh
    exec $(echo $out/lib/ld-linux*.so.*) --argv0 $out/bin/$2 --library-path $out/lib $1 $3 "\$@"
    EOF
      chmod +x $out/bin/$2
    }
  '';

  # Debian's Python and patchelf.
  tools = runCommand "tools" { debs = debsOf pinned pinned.tools; } ''
    ${unpack}
    ${needed}
    ${start}
    unpack root $debs

    # Copies a library or program into a folder, and into $out/lib what it is linked with.
    take() {
      if [ -e $2/$(basename $1) ]; then return; fi
      cp -L $1 $2
      for library in $(needed $1); do take $library $out/lib; done
    }

    # patchelf cannot be asked yet what it is linked with itself.
    mkdir -p $out/lib
    cp root/usr/bin/patchelf $out/lib/patchelf
    cp -L root/usr/lib/*/ld-linux*.so.* root/usr/lib/*/libc.so.* root/usr/lib/*/libm.so.* \
      root/usr/lib/*/libgcc_s.so.* root/usr/lib/*/libstdc++.so.? $out/lib
    start $out/lib/patchelf patchelf
    PATH=$out/bin:$PATH

    python=$(readlink root/usr/bin/python3)
    cp -r root/usr/lib/$python $out/lib
    rm -rf $out/lib/$python/test $out/lib/$python/sitecustomize.py
    take root/usr/bin/$python $out/lib/$python
    for module in $out/lib/$python/lib-dynload/*.so; do
      # A module whose libraries are not pinned cannot be imported.
      if needed $module > libraries 2> missing; then
        for library in $(cat libraries); do take $library $out/lib; done
      else
        rm $module
      fi
    done
    # -B: root can write to the store, and Python would leave its caches there.
    start $out/lib/$python/$python python3 -B
    $out/bin/python3 -c 'import json, hashlib, tarfile, ssl'
  '';
in
{
  inherit
    system
    fetchurl
    debsOf
    shell
    runCommand
    writeText
    unpack
    needed
    tools
    ;
}

#!/bin/sh
# setup.sh GROUP...: installs what is missing for build, fuzz, arm64, opencl, hexagon, compare or mpi.
#
# A requirement is tested for what it does (a command, a pkg-config module, a file), so
# a machine that has it from elsewhere installs nothing. What is missing comes from
# Debian's packages, as root or through sudo; where that is not allowed, the missing
# packages and the command are named and the script stops.
set -eu
cd "$(dirname "$0")/.."

missing=''
need() { # need PACKAGE TEST...: PACKAGE provides what TEST looks for
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
wished=''
wish() { # like need, but what cannot be installed is done without
    package=$1
    shift
    "$@" >/dev/null 2>&1 || wished="$wished $package"
}
have() { command -v "$1"; }
module() { have pkg-config && pkg-config --exists "$1"; }
compiles_c() { echo '#include <stdio.h>' | cc -x c -fsyntax-only -; }
has_opencl_headers() { echo '#include <CL/cl.h>' | cc -x c -fsyntax-only -; }
has_opencl_device() { ls /etc/OpenCL/vendors/*.icd && ldconfig -p | grep libOpenCL.so.1; }
has_pip() { python3 -m pip --version; }
links_fuzzer() {
    fuzzer_object=$(mktemp)
    echo '#include <stddef.h>
int LLVMFuzzerTestOneInput(const unsigned char *d, size_t n) { return d == NULL && n; }' |
        clang -x c -fsanitize=fuzzer,address - -o "$fuzzer_object"
    fuzzer_status=$?
    rm -f "$fuzzer_object"
    return $fuzzer_status
}

links_arm64() {
    arm64_program=$(mktemp)
    echo 'int main(void) { return 0; }' | aarch64-linux-gnu-gcc -x c - -o "$arm64_program"
    arm64_status=$?
    rm -f "$arm64_program"
    return $arm64_status
}

links_hexagon() {
    hexagon_program=$(mktemp)
    echo 'void _start(void) { }' |
        clang --target=hexagon-unknown-elf -mv68 -nostdlib -static -fuse-ld=lld -x c - -o "$hexagon_program"
    hexagon_status=$?
    rm -f "$hexagon_program"
    return $hexagon_status
}

check_group() {
    case $1 in
    build)
        need gcc have cc
        need libc6-dev compiles_c
        need cmake have cmake
        need ninja-build have ninja
        need pkg-config have pkg-config
        need libpcre2-dev module libpcre2-8
        need libutf8proc-dev module libutf8proc
        need libjansson-dev module jansson
        need libxxhash-dev module libxxhash
        need liburing-dev module liburing
        need libcmocka-dev module cmocka
        wish libedit-dev module libedit # editing in the chat
        wish libcurl4-openssl-dev module libcurl # downloads of models
        wish libmicrohttpd-dev module libmicrohttpd # serve
        wish opencl-headers has_opencl_headers # devices beside the processor
        need python3-pip has_pip
        need universal-ctags have ctags
        need util-linux have setarch
        ;;
    fuzz)
        need clang have clang
        need libclang-rt-dev links_fuzzer
        ;;
    arm64)
        need gcc-aarch64-linux-gnu have aarch64-linux-gnu-gcc
        need libc6-dev-arm64-cross links_arm64 # only recommended by the compiler's package
        need qemu-user have qemu-aarch64
        ;;
    opencl) # a device for tests, which is the processor
        wish ocl-icd-libopencl1 has_opencl_device
        wish pocl-opencl-icd has_opencl_device
        ;;
    hexagon) # the DSP's programs, and an emulator for them
        need clang have clang
        need lld links_hexagon
        need qemu-user have qemu-hexagon
        ;;
    compare)
        need debootstrap have debootstrap
        need fio have fio
        need npm have npm
        need mount have losetup
        need gnuplot-nox have gnuplot
        need e2fsprogs have mkfs.ext4
        ;;
    mpi) # -DPI2_MPI=ON
        need libopenmpi-dev module ompi-c
        need openmpi-bin have mpirun
        ;;
    *)
        echo "setup.sh: no group is called '$1' (build, fuzz, arm64, opencl, hexagon, compare, mpi)" >&2
        exit 2
        ;;
    esac
}

install_missing() {
    command -v apt-get >/dev/null || {
        echo "setup.sh: missing (by Debian's package names):$missing" >&2
        echo "setup.sh: this machine has no apt-get; install them by its own means" >&2
        exit 1
    }
    as_root=''
    if [ "$(id -u)" != 0 ]; then
        # sudo may ask for a password only where somebody can type one.
        if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
            as_root=sudo
        else
            echo "setup.sh: missing Debian packages:$missing" >&2
            echo "setup.sh: run this as root, then try again:" >&2
            echo "  apt-get update && apt-get install --no-install-recommends$missing" >&2
            exit 1
        fi
    fi
    echo "setup.sh: installing$missing" >&2
    log=$(mktemp)
    # A mirror that does not answer ends in an error, and another package run is waited for.
    # shellcheck disable=SC2086 # the list is meant to be split
    if ! { $as_root env DEBIAN_FRONTEND=noninteractive sh -c \
        'options="-q -o Acquire::Retries=2 -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30"
        options="$options -o DPkg::Lock::Timeout=120"
        apt-get $options update && apt-get $options install -y --no-install-recommends "$@"' sh $missing \
        </dev/null >"$log" 2>&1; }; then
        tail -20 "$log" >&2
        rm -f "$log"
        echo "setup.sh: apt-get failed (its last lines are above); wanted:$missing" >&2
        exit 1
    fi
    rm -f "$log"
}

for group in "$@"; do
    stamp=build/setup-$group.stamp
    if [ -f "$stamp" ] && [ ! scripts/setup.sh -nt "$stamp" ]; then continue; fi
    missing=''
    check_group "$group"
    case $missing in
    *libclang-rt-dev*) # the package carries clang's version in its name
        version=$(clang -dumpversion 2>/dev/null || apt-cache depends clang 2>/dev/null |
            sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p')
        missing=$(echo "$missing" | sed "s/libclang-rt-dev/libclang-rt-${version%%.*}-dev/")
        ;;
    esac
    if [ -n "$wished" ]; then
        if (missing="$missing$wished" && install_missing); then missing=''; else
            echo "setup.sh: goes on without$wished" >&2
        fi
        wished=''
    fi
    if [ -n "$missing" ]; then install_missing; fi
    mkdir -p build
    touch "$stamp"
done

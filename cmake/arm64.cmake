# Cross-building for 64-bit ARM with Debian's compiler; the tests run under qemu-user.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64;-L;/usr/aarch64-linux-gnu)

# scripts/arm64_sysroot.sh fills this folder; only libraries beside libc come from it.
get_filename_component(PI2_ARM64_SYSROOT "${CMAKE_CURRENT_LIST_DIR}/../build-arm64/sysroot" ABSOLUTE)
set(ENV{PKG_CONFIG_LIBDIR} "${PI2_ARM64_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig")
set(ENV{PKG_CONFIG_SYSROOT_DIR} "${PI2_ARM64_SYSROOT}")
# The compiler's multiarch header folder lies outside the sysroot's usr/include.
set(CMAKE_C_FLAGS_INIT "-isystem ${PI2_ARM64_SYSROOT}/usr/include/aarch64-linux-gnu")
# The tests are linked with shared libraries (cmocka has no other), the program with none (PI2_STATIC).
set(PI2_ARM64_LIBRARIES "${PI2_ARM64_SYSROOT}/usr/lib/aarch64-linux-gnu")
set(CMAKE_EXE_LINKER_FLAGS_INIT
    "-Wl,-rpath-link,${PI2_ARM64_LIBRARIES} -Wl,-rpath,${PI2_ARM64_LIBRARIES}")

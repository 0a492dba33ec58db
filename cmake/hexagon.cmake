# The Hexagon DSP's programs: one object of kernels, which is linked into a program for an emulator (qemu-hexagon), into
# the library that a phone's DSP loads (FastRPC), and, as plain C, into the tests. Debian's clang and lld are all that
# they need; where they are absent nothing is built, and the tests that need it say so (`make hexagon` installs them).
set(PI2_HEXAGON_VERSION v68 CACHE STRING "The Hexagon DSPs that the programs are for, and later ones: v67, v68, v69, ...")
find_program(PI2_HEXAGON_CLANG NAMES clang clang-14 clang-16 clang-19)
find_program(PI2_HEXAGON_EMULATOR NAMES qemu-hexagon)
set(PI2_HEXAGON_PROGRAM "")
if(NOT PI2_HEXAGON_CLANG)
  return()
endif()
set(folder ${PROJECT_SOURCE_DIR}/src/backends/hexagon)
set(built ${PROJECT_BINARY_DIR}/hexagon)
set(target --target=hexagon-unknown-elf -m${PI2_HEXAGON_VERSION})
set(compile ${PI2_HEXAGON_CLANG} ${target} -mhvx -mhvx-length=128b -std=c11 -O2 -ffreestanding -fPIC -G0
    -fvisibility=hidden -ffp-contract=off -fno-math-errno -Wall -Wextra -Wshadow -Wconversion -Werror
    -I ${PROJECT_SOURCE_DIR}/src -isystem ${folder}/device/freestanding -c)
set(link ${PI2_HEXAGON_CLANG} ${target} -fuse-ld=lld -nostdlib)

# A clang without Hexagon, without its headers or without lld is as good as none.
file(MAKE_DIRECTORY ${built})
file(WRITE ${built}/try.c "#include <hvx_hexagon_protos.h>\nvoid _start(void) { }\n")
execute_process(COMMAND ${compile} ${built}/try.c -o ${built}/try.o RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
if(NOT failed)
  execute_process(COMMAND ${link} -static ${built}/try.o -o ${built}/try RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
endif()
if(failed)
  return()
endif()

file(GLOB headers CONFIGURE_DEPENDS ${folder}/*.h ${folder}/device/*.h ${folder}/device/freestanding/*.h)
list(APPEND headers ${PROJECT_SOURCE_DIR}/src/weight_formats/half_float.h
     ${PROJECT_SOURCE_DIR}/src/weight_formats/weight_format.h ${PROJECT_SOURCE_DIR}/src/weight_formats/weight_formats.inc)
foreach(name hexagon_kernel hexagon_linux hexagon_skel)
  add_custom_command(OUTPUT ${built}/${name}.o COMMAND ${compile} ${folder}/device/${name}.c -o ${built}/${name}.o
                     DEPENDS ${folder}/device/${name}.c ${headers} VERBATIM)
endforeach()
set(PI2_HEXAGON_PROGRAM ${built}/powerinfer2-hexagon)
set(library ${built}/libpi2_skel.so)
add_custom_command(OUTPUT ${PI2_HEXAGON_PROGRAM} VERBATIM
                   COMMAND ${link} -static ${built}/hexagon_kernel.o ${built}/hexagon_linux.o -o ${PI2_HEXAGON_PROGRAM}
                   DEPENDS ${built}/hexagon_kernel.o ${built}/hexagon_linux.o)
add_custom_command(OUTPUT ${library} VERBATIM
                   COMMAND ${link} -shared -Wl,--no-undefined -Wl,-soname,libpi2_skel.so ${built}/hexagon_kernel.o
                           ${built}/hexagon_skel.o -o ${library}
                   DEPENDS ${built}/hexagon_kernel.o ${built}/hexagon_skel.o)
add_custom_target(hexagon ALL DEPENDS ${PI2_HEXAGON_PROGRAM} ${library})

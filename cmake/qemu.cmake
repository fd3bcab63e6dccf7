# cmake -DSOURCE=dir -DXXHASH_INCLUDE=dir -DJOBS=n -P qemu.cmake
# Builds the library, the kernel checker and the examples for 64-bit ARM and runs them under
# qemu-user, once with all levels and once with NEON alone.

find_program(COMPILER aarch64-linux-gnu-gcc)
find_program(QEMU qemu-aarch64)
set(sysroot /usr/aarch64-linux-gnu)
if(NOT COMPILER OR NOT QEMU OR NOT EXISTS ${sysroot}/include/stdlib.h)
  message("qemu-aarch64: SKIPPED, needs gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user")
  return()
endif()
set(folder ${SOURCE}/build-aarch64)
set(generator "")
find_program(NINJA ninja)
if(NINJA AND NOT EXISTS ${folder}/CMakeCache.txt)
  set(generator -G Ninja)
endif()

function(step)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${SOURCE} RESULT_VARIABLE status)
  if(status)
    message(FATAL_ERROR "qemu-aarch64: this step failed: ${ARGN}")
  endif()
endfunction()

# Header files that belong to no machine, without the folder of those that do.
file(GLOB headers ${XXHASH_INCLUDE}/xxhash.h ${XXHASH_INCLUDE}/xxh3.h)
file(COPY ${headers} DESTINATION ${folder}/include)
file(GLOB examples RELATIVE ${SOURCE}/examples ${SOURCE}/examples/*.c)
list(FILTER examples EXCLUDE REGEX "^op_") # with ggml
list(TRANSFORM examples REPLACE "(.*)\\.c" "example-\\1")

step(${CMAKE_COMMAND} -B ${folder} -S ${SOURCE} ${generator} -DCMAKE_BUILD_TYPE=Release
  -DCMAKE_TOOLCHAIN_FILE=${SOURCE}/cmake/aarch64.cmake -DXXHASH_INCLUDE=${folder}/include
  -DVARVE_WERROR=ON -DVARVE_OPENMP=OFF -DVARVE_GGML=OFF)
step(${CMAKE_COMMAND} --build ${folder} --parallel ${JOBS} --target varve-verify ${examples})

# With --quick in place of --brief this takes ten times as long.
foreach(cpu max cortex-a57)
  set(ENV{QEMU_CPU} ${cpu})
  message("qemu-aarch64: -cpu ${cpu}")
  step(${QEMU} -L ${sysroot} ${folder}/bin/varve-verify --brief)
  foreach(example IN LISTS examples)
    step(${QEMU} -L ${sysroot} ${folder}/bin/${example})
  endforeach()
endforeach()

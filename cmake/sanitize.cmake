# cmake -DPRESET=asan|tsan -DSOURCE=dir -DLLAMA=dir -DJOBS=n -P sanitize.cmake
# Configure, build and test one sanitizer preset; fails when any of the three does.

set(folder ${SOURCE}/build-${PRESET})
set(generator "")
find_program(NINJA ninja)
if(NINJA AND NOT EXISTS ${folder}/CMakeCache.txt)
  set(generator -G Ninja)
endif()
set(ENV{ASAN_OPTIONS} "detect_stack_use_after_return=1:strict_string_checks=1")
set(ENV{UBSAN_OPTIONS} "print_stacktrace=1")
set(ENV{TSAN_OPTIONS} "halt_on_error=1:second_deadlock_stack=1")

function(step)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${SOURCE} RESULT_VARIABLE status)
  if(status)
    message(FATAL_ERROR "${PRESET}: this step failed: ${ARGN}")
  endif()
endfunction()

step(${CMAKE_COMMAND} --preset ${PRESET} ${generator} -DVARVE_LLAMA=${LLAMA})
step(${CMAKE_COMMAND} --build ${folder} --parallel ${JOBS})
step(${CMAKE_CTEST_COMMAND} --test-dir ${folder} --output-on-failure -j ${JOBS}
  -L "unit|check|ggml" --no-tests=error)

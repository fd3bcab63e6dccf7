# varve-verify, the kernel checker: the program behind `varve verify`, which is installed, and a test.
# It is also a library, so that tests and varve-bench can use its oracle.

file(GLOB check_sources CONFIGURE_DEPENDS tests/check/*.c)
if(VARVE_ARCH STREQUAL "arm")           # GCC 12 crashes over one of its loops
  set_source_files_properties(tests/check/oracle.c PROPERTIES COMPILE_OPTIONS
    -fno-tree-vectorize)
endif()
if(VARVE_SANITIZE MATCHES "thread")     # reads inputs, which no thread writes, and its own memory
  set_source_files_properties(tests/check/oracle.c PROPERTIES COMPILE_OPTIONS
    -fno-sanitize=thread)
endif()
add_library(varve_check_objs OBJECT ${check_sources})
target_compile_definitions(varve_check_objs PRIVATE _GNU_SOURCE)
target_include_directories(varve_check_objs PRIVATE tests)
target_link_libraries(varve_check_objs PRIVATE varve_internal)
add_executable(varve-verify $<TARGET_OBJECTS:varve_check_objs>)
target_link_libraries(varve-verify PRIVATE varve_internal m Threads::Threads)
set_target_properties(varve-verify PROPERTIES LINKER_LANGUAGE C)
add_library(varve_check_library STATIC $<TARGET_OBJECTS:varve_check_objs>)
set_target_properties(varve_check_library PROPERTIES LINKER_LANGUAGE C)

# The checker once more, with the AVX-VNNI kernels in the EVEX encoding of the same instructions: for
# machines that have AVX-512 VNNI and not AVX-VNNI. There all but the encoding of two instructions is
# checked. What the library has too comes from these objects, since they are linked first.
if(VARVE_ARCH STREQUAL "x86")
  file(GLOB evex_sources CONFIGURE_DEPENDS src/kernel/*_avxvnni.c)
  varve_isa_sources(evex_sources)
  add_executable(varve-verify-evex $<TARGET_OBJECTS:varve_check_objs> ${evex_sources} src/base/isa.c)
  target_compile_definitions(varve-verify-evex PRIVATE VARVE_AVXVNNI_AS_EVEX VARVE_BUILD)
  target_link_libraries(varve-verify-evex PRIVATE varve_internal m Threads::Threads)
endif()

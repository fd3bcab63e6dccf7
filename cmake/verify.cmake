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

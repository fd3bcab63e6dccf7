# The kernels for AMX on CPUs without it: the sources that know tile registers are compiled once more,
# with functions in plain C in place of the instructions (tests/amx/emulate.c). The checker and a test
# of whole attention then run with these. What the library has too comes from these objects, since they
# are linked first. tests/check/test_amx.py looks at the shipped objects.

if(NOT VARVE_ARCH STREQUAL "x86")
  return()
endif()
file(GLOB amx_sources CONFIGURE_DEPENDS src/kernel/*_amx.c)
varve_isa_sources(amx_sources)
add_library(varve_emulated_objs OBJECT ${amx_sources} src/base/isa.c tests/amx/emulate.c)
target_compile_definitions(varve_emulated_objs PRIVATE VARVE_BUILD VARVE_AMX_EMULATED)
target_link_libraries(varve_emulated_objs PRIVATE varve_internal)

add_executable(varve-verify-amx $<TARGET_OBJECTS:varve_check_objs>
  $<TARGET_OBJECTS:varve_emulated_objs>)
target_link_libraries(varve-verify-amx PRIVATE varve_internal m Threads::Threads)
set_target_properties(varve-verify-amx PROPERTIES LINKER_LANGUAGE C)
varve_test(check-amx-emulated check 900 varve-verify-amx --quick --isa amx)

add_executable(test-fast-amx tests/unit/test_fast.c $<TARGET_OBJECTS:varve_emulated_objs>)
target_compile_definitions(test-fast-amx PRIVATE _GNU_SOURCE)
target_include_directories(test-fast-amx PRIVATE tests ${CMOCKA_INCLUDE})
target_link_libraries(test-fast-amx PRIVATE varve_check_library varve_internal ${CMOCKA_LIBRARY})
varve_test(unit-fast-amx-emulated unit 600 test-fast-amx)

# The kernels for AMX on CPUs without it: the sources that know tile registers are compiled once more,
# with functions in plain C in place of the instructions (tests/amx/emulate.c). The checker and a test
# of whole attention then run on that library. tests/check/test_amx.py looks at the shipped objects.

if(NOT VARVE_ARCH STREQUAL "x86")
  return()
endif()
file(GLOB amx_sources CONFIGURE_DEPENDS src/kernel/*_amx.c)
set(amx_emulated ${amx_sources} src/base/isa.c tests/amx/emulate.c)
add_library(varve_emulated STATIC ${amx_emulated}
  "$<FILTER:$<TARGET_OBJECTS:varve_objs>,EXCLUDE,(_amx|/isa)[.]c>")
target_compile_definitions(varve_emulated PRIVATE VARVE_BUILD VARVE_AMX_EMULATED)
target_link_libraries(varve_emulated PUBLIC varve_private m Threads::Threads
  $<$<BOOL:${VARVE_OPENMP}>:OpenMP::OpenMP_C>)

add_executable(varve-verify-amx $<TARGET_OBJECTS:varve_check_objs>)
target_link_libraries(varve-verify-amx PRIVATE varve_emulated)
set_target_properties(varve-verify-amx PROPERTIES LINKER_LANGUAGE C)
varve_test(check-amx-emulated check 900 varve-verify-amx --quick --isa amx)

add_executable(test-fast-amx tests/unit/test_fast.c)
target_compile_definitions(test-fast-amx PRIVATE _GNU_SOURCE)
target_include_directories(test-fast-amx PRIVATE tests ${CMOCKA_INCLUDE})
target_link_libraries(test-fast-amx PRIVATE varve_check_library varve_emulated ${CMOCKA_LIBRARY})
varve_test(unit-fast-amx-emulated unit 600 test-fast-amx)

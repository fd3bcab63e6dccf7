# varve-bench, the program behind `varve bench`: varve and ggml's CPU back end in one process.

if(NOT VARVE_GGML OR NOT EXISTS ${ggml_lib}/libggml-cpu.so)
  message(STATUS "Without varve bench (no libggml-cpu.so to link with known: run make)")
  return()
elseif(NOT VARVE_OPENMP)
  message(STATUS "Without varve bench (it needs VARVE_OPENMP: all sides get the same threads)")
  return()
elseif(NOT JANSSON_INCLUDE OR NOT JANSSON_LIBRARY)
  message(STATUS "Without varve bench (it needs jansson: install libjansson-dev)")
  return()
endif()

file(GLOB bench_sources CONFIGURE_DEPENDS bench/*.c)
varve_isa_sources(bench_sources)
add_executable(varve-bench ${bench_sources} cli/args.c run/gnuplot.c run/json_file.c
  run/out_file.c run/utf8.c)
target_include_directories(varve-bench PRIVATE bench cli run tests)
target_include_directories(varve-bench SYSTEM PRIVATE ${JANSSON_INCLUDE})
target_link_libraries(varve-bench PRIVATE varve_check_library varve_internal varve_ggml_headers
  ${ggml_lib}/libggml.so ${ggml_lib}/libggml-cpu.so ${ggml_lib}/libggml-base.so
  ${JANSSON_LIBRARY} m Threads::Threads OpenMP::OpenMP_C)
set_target_properties(varve-bench PROPERTIES BUILD_RPATH ${ggml_lib}
  INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR};${ggml_lib}")

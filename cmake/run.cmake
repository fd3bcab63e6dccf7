# varve-run, the program behind `varve run`; it links llama.cpp itself, as varve-eval does.

file(GLOB run_sources CONFIGURE_DEPENDS run/*.c)
list(FILTER run_sources EXCLUDE REGEX "/gnuplot\\.c$") # of varve bench and varve eval
find_path(JANSSON_INCLUDE jansson.h)
find_library(JANSSON_LIBRARY jansson)
if(NOT VARVE_GGML OR NOT EXISTS ${ggml_lib}/libllama.so)
  message(STATUS "Without varve run (no libllama.so of llama.cpp known: run make)")
  return()
elseif(NOT JANSSON_INCLUDE OR NOT JANSSON_LIBRARY)
  message(STATUS "Without varve run (it needs jansson: install libjansson-dev)")
  return()
endif()

set(run_model ${CMAKE_BINARY_DIR}/llama/model.gguf)
if(VARVE_LLAMA)
  set(run_model ${VARVE_LLAMA}/model.gguf)
endif()
add_executable(varve-run ${run_sources} cli/args.c cli/launch.c)
target_include_directories(varve-run PRIVATE cli)
target_include_directories(varve-run SYSTEM PRIVATE ${ggml_source}/include ${JANSSON_INCLUDE})
target_compile_definitions(varve-run PRIVATE VARVE_RUN_MODEL="${run_model}")
target_link_libraries(varve-run PRIVATE varve_ggml_headers varve_static ${ggml_lib}/libllama.so
  ${ggml_lib}/libggml.so ${ggml_lib}/libggml-base.so ${JANSSON_LIBRARY} m
  ${CMAKE_DL_LIBS})
# An installed copy looks beside itself first: a distribution has llama.cpp's libraries there.
set_target_properties(varve-run PROPERTIES BUILD_RPATH ${ggml_lib}
  INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR};${ggml_lib}")

# varve-eval, the program behind `varve eval`: on llama.cpp itself, as varve-run. What it computes
# from numbers alone is a library for the unit tests too.

add_library(varve_eval_figures STATIC eval/statistics.c eval/tasks.c eval/topk.c)
target_include_directories(varve_eval_figures PUBLIC eval)
target_link_libraries(varve_eval_figures PUBLIC m)

if(NOT TARGET varve-run)
  message(STATUS "Without varve eval (it needs what varve run needs)")
  return()
endif()
file(GLOB eval_sources CONFIGURE_DEPENDS eval/*.c)
list(FILTER eval_sources EXCLUDE REGEX "/(statistics|tasks|topk)\\.c$")
get_filename_component(eval_llama ${run_model} DIRECTORY)

# The page of --report: its parts become one array of bytes.
file(GLOB page_parts CONFIGURE_DEPENDS eval/report/*)
set(page_text ${CMAKE_BINARY_DIR}/eval/page_text.c)
add_custom_command(OUTPUT ${page_text} DEPENDS ${page_parts} cmake/embed.cmake VERBATIM
  COMMAND ${CMAKE_COMMAND} -DIN=${PROJECT_SOURCE_DIR}/eval/report/page.html -DOUT=${page_text}
  -DNAME=page_text -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake)

add_executable(varve-eval ${eval_sources} ${page_text} cli/args.c cli/launch.c run/back_ends.c
  run/child.c run/engine.c run/file_at.c run/gnuplot.c run/input.c run/json_file.c run/kv_size.c
  run/log.c run/model_file.c run/out_file.c run/prompt.c run/stop.c run/utf8.c)
target_include_directories(varve-eval PRIVATE eval cli run)
target_include_directories(varve-eval SYSTEM PRIVATE ${ggml_source}/include ${JANSSON_INCLUDE}
  ${XXHASH_INCLUDE})
target_compile_definitions(varve-eval PRIVATE _GNU_SOURCE VARVE_RUN_MODEL="${run_model}"
  VARVE_EVAL_SOURCE="${eval_llama}/src" XXH_INLINE_ALL)
target_link_libraries(varve-eval PRIVATE varve_eval_figures varve_ggml_headers varve_static
  ${ggml_lib}/libllama.so ${ggml_lib}/libggml.so ${ggml_lib}/libggml-base.so ${JANSSON_LIBRARY} m
  ${CMAKE_DL_LIBS})
set_target_properties(varve-eval PROPERTIES BUILD_RPATH ${ggml_lib}
  INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR};${ggml_lib}")

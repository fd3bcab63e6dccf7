# varve-plan, the program behind `varve plan`: llama.cpp lays out models and contexts for it. Built where
# varve-run is, which finds the libraries.

if(NOT TARGET varve-run)
  message(STATUS "Without varve plan (it needs what varve run needs)")
  return()
endif()

file(GLOB plan_sources CONFIGURE_DEPENDS plan/*.c)
add_executable(varve-plan ${plan_sources} cli/args.c cli/launch.c run/back_ends.c run/json_file.c
  run/log.c run/model_file.c run/out_file.c run/utf8.c)
target_include_directories(varve-plan PRIVATE plan cli run)
target_include_directories(varve-plan SYSTEM PRIVATE ${ggml_source}/include ${JANSSON_INCLUDE})
target_link_libraries(varve-plan PRIVATE varve_ggml_headers varve_static ${ggml_lib}/libllama.so
  ${ggml_lib}/libggml.so ${ggml_lib}/libggml-base.so ${JANSSON_LIBRARY} ${CMAKE_DL_LIBS})
# An installed copy looks beside itself first: a distribution has llama.cpp's libraries there.
set_target_properties(varve-plan PROPERTIES BUILD_RPATH ${ggml_lib}
  INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR};${ggml_lib}")

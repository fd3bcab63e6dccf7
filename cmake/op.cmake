# libvarve-op: attention with a state for ggml graphs (include/varve/op.h). A library of its own, for
# programs that link ggml; libvarve stays free of it. libvarve is linked in.

file(GLOB op_sources CONFIGURE_DEPENDS op/*.c)
if(NOT VARVE_GGML)
  return()
endif()

add_library(varve_op_objs OBJECT ${op_sources})
target_compile_definitions(varve_op_objs PRIVATE VARVE_OP_BUILD)
target_include_directories(varve_op_objs PRIVATE include)
target_link_libraries(varve_op_objs PRIVATE varve_ggml_headers)

add_library(varve-op SHARED $<TARGET_OBJECTS:varve_op_objs>)
target_link_libraries(varve-op PRIVATE varve_static ${ggml_lib}/libggml-base.so m Threads::Threads)
target_link_options(varve-op PRIVATE -Wl,--exclude-libs,ALL)
if(NOT VARVE_SANITIZE)
  target_link_options(varve-op PRIVATE -Wl,--no-undefined)
endif()
set_target_properties(varve-op PROPERTIES VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})

# Without libvarve in it: link libvarve.a behind it.
add_library(varve-op-static STATIC $<TARGET_OBJECTS:varve_op_objs>)
target_link_libraries(varve-op-static PUBLIC $<BUILD_INTERFACE:varve_static>)

foreach(target varve-op varve-op-static)
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>)
  set_target_properties(${target} PROPERTIES OUTPUT_NAME varve-op EXPORT_NAME op LINKER_LANGUAGE C)
endforeach()
add_library(varve::op ALIAS varve-op)

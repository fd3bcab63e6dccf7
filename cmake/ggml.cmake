# The plug-in for ggml (libggml-varve.so) and the library that the launcher preloads.
#
# Needed: llama.cpp's source (headers that are not installed) and libggml-base.so to link against.
# `make` prepares both under build/llama. A source given by hand is built as far as needed.

set(VARVE_LLAMA "" CACHE PATH "llama.cpp as set up by make (default: llama/ in the build folder)")
set(VARVE_GGML AUTO CACHE STRING "Build the plug-in for ggml: ON, OFF, or AUTO (when it can be)")
foreach(folder ${CMAKE_BINARY_DIR}/llama ${PROJECT_SOURCE_DIR}/build/llama)
  if(NOT VARVE_LLAMA AND EXISTS ${folder}/src/ggml/include/ggml.h)
    set(VARVE_LLAMA ${folder})
  endif()
endforeach()

if(VARVE_GGML_SOURCE AND NOT VARVE_GGML_LIB_DIR)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  message(STATUS "Preparing the ggml libraries of ${VARVE_GGML_SOURCE}")
  execute_process(COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tools/setup.py
    --ggml-source ${VARVE_GGML_SOURCE} --link ${CMAKE_BINARY_DIR}/llama ggml
    RESULT_VARIABLE status)
  if(status)
    message(FATAL_ERROR "the ggml libraries could not be built; see the lines above")
  endif()
  set(VARVE_LLAMA ${CMAKE_BINARY_DIR}/llama)
endif()

set(ggml_source "${VARVE_GGML_SOURCE}")
set(ggml_lib "${VARVE_GGML_LIB_DIR}")
if(NOT ggml_source AND VARVE_LLAMA)
  set(ggml_source ${VARVE_LLAMA}/src)
endif()
if(NOT ggml_lib AND VARVE_LLAMA)
  set(ggml_lib ${VARVE_LLAMA}/lib)
endif()

# Real paths, so that everything is compiled anew when the link leads somewhere else.
if(ggml_source)
  file(REAL_PATH "${ggml_source}" ggml_source)
endif()
if(ggml_lib)
  file(REAL_PATH "${ggml_lib}" ggml_lib)
endif()

set(ggml_found OFF)
if(ggml_source AND EXISTS ${ggml_lib}/libggml-base.so)
  set(ggml_found ON)
endif()
if(VARVE_GGML STREQUAL "AUTO")
  set(VARVE_GGML ${ggml_found})
endif()

file(GLOB plugin_sources CONFIGURE_DEPENDS ggml/*.c)
list(FILTER plugin_sources EXCLUDE REGEX "/preload\\.c$")

if(EXISTS ${PROJECT_SOURCE_DIR}/ggml/preload.c)
  add_library(varve-preload MODULE ggml/preload.c)
  target_compile_definitions(varve-preload PRIVATE _GNU_SOURCE)
  target_link_libraries(varve-preload PRIVATE ${CMAKE_DL_LIBS})
endif()

if(NOT VARVE_GGML)
  message(STATUS "Without the plug-in for ggml (no llama.cpp source known: run make, or give "
    "-DVARVE_GGML_SOURCE=/path/to/llama.cpp)")
  return()
elseif(NOT ggml_found)
  message(FATAL_ERROR "VARVE_GGML needs llama.cpp: run make, or give "
    "-DVARVE_GGML_SOURCE=/path/to/llama.cpp")
endif()

# The version that the plug-in is compiled against, as ggml_version() of the host gives it.
foreach(part MAJOR MINOR PATCH)
  file(STRINGS ${ggml_source}/ggml/CMakeLists.txt line REGEX "^set\\(GGML_VERSION_${part} ")
  string(REGEX REPLACE ".* ([0-9]+).*" "\\1" ggml_${part} "${line}")
endforeach()
set(VARVE_GGML_VERSION "${ggml_MAJOR}.${ggml_MINOR}.${ggml_PATCH}")

# Headers of ggml, without our warnings.
add_library(varve_ggml_headers INTERFACE)
target_include_directories(varve_ggml_headers SYSTEM INTERFACE ${ggml_source}/ggml/include
  ${ggml_source}/ggml/src)
target_compile_definitions(varve_ggml_headers INTERFACE _GNU_SOURCE
  VARVE_GGML_VERSION="${VARVE_GGML_VERSION}")

if(plugin_sources)
  add_library(ggml-varve MODULE ${plugin_sources})
  target_link_libraries(ggml-varve PRIVATE varve_ggml_headers varve_static
    ${ggml_lib}/libggml-base.so ${CMAKE_DL_LIBS} Threads::Threads
    $<$<BOOL:${VARVE_OPENMP}>:OpenMP::OpenMP_C>) # its own parallel regions: the host's team
  # It links ggml-base only, exports only what ggml looks up, and carries no RPATH: the host has
  # loaded its own libggml-base already.
  target_link_options(ggml-varve PRIVATE -Wl,--exclude-libs,ALL)
  if(NOT VARVE_SANITIZE)
    target_link_options(ggml-varve PRIVATE -Wl,--no-undefined)
  endif()
  set_target_properties(ggml-varve PROPERTIES SKIP_BUILD_RPATH ON INSTALL_RPATH "")
endif()

# The tests of the op with a state for ggml graphs (included by tests.cmake).
#   tests/op/flash_*.c     one program, test-flash-attn-state    label ggml
#   tests/op/threads_*.c   one program, test-op-threads          label ggml
#   tests/op/test_*.c      one cmocka program each               label ggml
# The build for ThreadSanitizer has no plug-in and no ggml that it could see into. There the op is
# compiled into test-op-threads, whose threads are its own, with libggml-base for tensors (label
# unit).

file(GLOB threads_sources CONFIGURE_DEPENDS tests/op/threads_*.c)
if(NOT TARGET varve-op)
  if(VARVE_SANITIZE MATCHES "thread" AND ggml_found)
    add_executable(test-op-threads ${threads_sources} ${op_sources})
    target_compile_definitions(test-op-threads PRIVATE _GNU_SOURCE)
    target_include_directories(test-op-threads SYSTEM PRIVATE ${ggml_source}/ggml/include
      ${ggml_source}/ggml/src)
    target_link_libraries(test-op-threads PRIVATE varve_static ${ggml_lib}/libggml-base.so m
      Threads::Threads)
    varve_test(op-threads unit 600 test-op-threads)
  endif()
  return()
endif()

add_executable(test-op-threads ${threads_sources})
target_link_libraries(test-op-threads PRIVATE varve-op varve_static varve_ggml_headers
  ${ggml_lib}/libggml-base.so Threads::Threads)
varve_test(op-threads ggml 600 test-op-threads)

set(op_ggml ${ggml_lib}/libggml.so ${ggml_lib}/libggml-cpu.so ${ggml_lib}/libggml-base.so)

file(GLOB flash_sources CONFIGURE_DEPENDS tests/op/flash_*.c)
add_executable(test-flash-attn-state ${flash_sources})
target_compile_definitions(test-flash-attn-state PRIVATE
  VARVE_TORCH_SCRIPT="${PROJECT_SOURCE_DIR}/tests/op/torch_sdpa.py")
target_include_directories(test-flash-attn-state PRIVATE tests)
target_link_libraries(test-flash-attn-state PRIVATE varve-op varve_check_library varve_internal
  varve_ggml_headers ${op_ggml} m Threads::Threads)
varve_test(op-flash-attn-state ggml 900 test-flash-attn-state)

file(GLOB op_test_sources CONFIGURE_DEPENDS tests/op/test_*.c)
foreach(source IN LISTS op_test_sources)
  varve_test_name(name ${source})
  add_executable(test-op-${name} ${source})
  target_include_directories(test-op-${name} PRIVATE tests ${CMOCKA_INCLUDE})
  target_link_libraries(test-op-${name} PRIVATE varve-op varve_check_library varve_internal
    varve_ggml_headers ${op_ggml} ${CMOCKA_LIBRARY} m Threads::Threads)
  varve_test(op-${name} ggml 600 test-op-${name})
endforeach()

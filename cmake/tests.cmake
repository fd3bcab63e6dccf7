# Every file in tests/ and every tools/lint_*.py is found by its name; nothing is listed here.
#   tests/unit/*.c     one cmocka program each      label unit
#   examples/*.c       one program each             label unit (op_*.c, with ggml: label ggml)
#   tests/check/*.c    one program, varve-verify    label check (cmake/verify.cmake)
#   tests/check/*.py   one test each                label check (not with sanitizers)
#   tests/ggml/*.c     one program each, with ggml  label ggml
#   tests/op/*.c       see tests_op.cmake           label ggml
#   tests/system/*.py  one test each                label system (common.py and _*.py are helpers;
#                      test_asan*.py run after the asan build, found in VARVE_ASAN_BUILD)
#   tools/lint_*.py    one test each                label lint

include(ProcessorCount)
ProcessorCount(cores)
math(EXPR half "(${cores} + 1) / 2")    # for tests that are builds: two of them side by side
find_package(Python3 COMPONENTS Interpreter)
find_path(CMOCKA_INCLUDE cmocka.h)
find_library(CMOCKA_LIBRARY cmocka)

option(VARVE_SUBBUILDS "Run the sanitizer builds as tests" OFF)
set(VARVE_MODEL "" CACHE FILEPATH "Model for the system tests (default: the one set up by make)")

# Several tests run at once, so a thread that waits must not keep a core from others. This is how long
# libgomp spins by itself when it knows that threads outnumber cores.
set(test_environment
  "GOMP_SPINCOUNT=1000"
  "VARVE_BUILD=${CMAKE_BINARY_DIR}"
  "VARVE_SOURCE=${PROJECT_SOURCE_DIR}"
  "VARVE_LLAMA=${VARVE_LLAMA}"
  "VARVE_ASAN_BUILD=${PROJECT_SOURCE_DIR}/build-asan"
  "VARVE_MODEL=$<IF:$<BOOL:${VARVE_MODEL}>,${VARVE_MODEL},${VARVE_LLAMA}/model.gguf>"
  "PYTHONDONTWRITEBYTECODE=1")

function(varve_test name label timeout)
  add_test(NAME ${name} COMMAND ${ARGN})
  set_tests_properties(${name} PROPERTIES LABELS ${label} TIMEOUT ${timeout}
    SKIP_RETURN_CODE 77 ENVIRONMENT "${test_environment}")
endfunction()

function(varve_test_name out source)
  get_filename_component(name ${source} NAME_WE)
  string(REGEX REPLACE "^test[_-]" "" name ${name})
  string(REPLACE "_" "-" name ${name})
  set(${out} ${name} PARENT_SCOPE)
endfunction()

# ---- kernel checker -------------------------------------------------------------------------
# Kernels know of no threads, and the checker has guard pages of its own: sanitizers see as much in
# fewer of the same.
if(VARVE_SANITIZE)
  varve_test(check check 900 varve-verify --brief)
else()
  varve_test(check check 900 varve-verify --quick)
endif()

# ---- the same for ARM, where a cross compiler and an emulator are installed -----------------
if(NOT VARVE_SANITIZE AND NOT CMAKE_CROSSCOMPILING)
  varve_test(qemu-aarch64 check 900 ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR}
    -DXXHASH_INCLUDE=${XXHASH_INCLUDE} -DJOBS=${half} -P ${PROJECT_SOURCE_DIR}/cmake/qemu.cmake)
  set_tests_properties(qemu-aarch64 PROPERTIES SKIP_REGULAR_EXPRESSION "qemu-aarch64: SKIPPED"
    PROCESSORS ${half} COST 100)
endif()

# ---- unit tests -----------------------------------------------------------------------------
file(GLOB unit_sources CONFIGURE_DEPENDS tests/unit/*.c)
if(unit_sources AND NOT CMOCKA_LIBRARY AND CMAKE_CROSSCOMPILING)
  message(STATUS "Without the unit tests (no cmocka for ${CMAKE_SYSTEM_PROCESSOR})")
  set(unit_sources "")
elseif(unit_sources AND NOT CMOCKA_LIBRARY)
  message(FATAL_ERROR "the unit tests need cmocka: install libcmocka-dev, or -DVARVE_TESTS=OFF")
endif()
foreach(source IN LISTS unit_sources)
  varve_test_name(name ${source})
  add_executable(test-${name} ${source})
  target_compile_definitions(test-${name} PRIVATE _GNU_SOURCE)
  target_include_directories(test-${name} PRIVATE tests ${CMOCKA_INCLUDE})
  target_link_libraries(test-${name} PRIVATE varve_check_library varve_internal varve_eval_figures
    ${CMOCKA_LIBRARY} m Threads::Threads)
  varve_test(unit-${name} unit 600 test-${name})
endforeach()

# ---- examples check themselves --------------------------------------------------------------
file(GLOB example_sources CONFIGURE_DEPENDS examples/*.c)
foreach(source IN LISTS example_sources)
  get_filename_component(name ${source} NAME_WE)
  if(NOT name MATCHES "^op_")
    varve_test(example-${name} unit 60 example-${name})
  elseif(VARVE_GGML)
    varve_test(example-${name} ggml 60 example-${name})
  endif()
endforeach()

# ---- tests with ggml in the same process ----------------------------------------------------
file(GLOB ggml_test_sources CONFIGURE_DEPENDS tests/ggml/*.c)
if(NOT VARVE_GGML)
  set(ggml_test_sources "")
endif()
foreach(source IN LISTS ggml_test_sources)
  varve_test_name(name ${source})
  add_executable(test-ggml-${name} ${source})
  target_include_directories(test-ggml-${name} PRIVATE tests ggml ${CMOCKA_INCLUDE})
  target_link_libraries(test-ggml-${name} PRIVATE varve_check_library varve_internal
    varve_ggml_headers ${ggml_lib}/libggml.so ${ggml_lib}/libggml-cpu.so
    ${ggml_lib}/libggml-base.so ${CMOCKA_LIBRARY} m Threads::Threads ${CMAKE_DL_LIBS})
  varve_test(ggml-${name} ggml 1200 test-ggml-${name})
endforeach()

include(cmake/tests_op.cmake)
include(cmake/tests_amx.cmake)

# ---- what the checker counts ----------------------------------------------------------------
file(GLOB check_scripts CONFIGURE_DEPENDS tests/check/*.py)
foreach(source IN LISTS check_scripts)
  if(Python3_FOUND AND NOT VARVE_SANITIZE)
    varve_test_name(name ${source})
    varve_test(check-${name} check 600 ${Python3_EXECUTABLE} ${source})
  endif()
endforeach()

# ---- system tests and lints -----------------------------------------------------------------
file(GLOB system_sources CONFIGURE_DEPENDS tests/system/*.py)
file(GLOB lint_sources CONFIGURE_DEPENDS tools/lint_*.py)
if((system_sources OR lint_sources) AND NOT Python3_FOUND)
  message(FATAL_ERROR "the tests need python3: install it, or -DVARVE_TESTS=OFF")
endif()
if(VARVE_SANITIZE)
  set(lint_sources "")
  set(system_sources "")
endif()
# Those that look at times, or at memory that processes share (Pss), have the machine to
# themselves, and so has every test that is not named here. The others run side by side, the longest first.
set(side_by_side backend-ops=200 model=30 op-mutations=20 quality=150 state-bytes=20
  tiers-cache=20 tiers-memory=20 tiers-quality=100
  tiers-server=90 window=60)
foreach(source IN LISTS system_sources)
  varve_test_name(name ${source})
  if(NOT name MATCHES "^(-|common$|helpers?$)")
    varve_test(system-${name} system 2400 ${Python3_EXECUTABLE} ${source})
    if(";${side_by_side};" MATCHES ";${name}=([0-9]+);")
      set_tests_properties(system-${name} PROPERTIES COST ${CMAKE_MATCH_1})
    else()
      set_tests_properties(system-${name} PROPERTIES RUN_SERIAL ON)
    endif()
    if(VARVE_SUBBUILDS AND name STREQUAL "plan") # takes the program of the asan build if it is there
      set_tests_properties(system-plan PROPERTIES DEPENDS asan)
    endif()
    if(VARVE_SUBBUILDS AND name MATCHES "asan")
      set_tests_properties(system-${name} PROPERTIES FIXTURES_REQUIRED asan-build)
    endif()
  endif()
endforeach()
foreach(source IN LISTS lint_sources)
  varve_test_name(name ${source})
  string(REGEX REPLACE "^lint-" "" name ${name})
  varve_test(lint-${name} lint 300 ${Python3_EXECUTABLE} ${source})
  set_tests_properties(lint-${name} PROPERTIES WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
endforeach()
if(NOT VARVE_SANITIZE)
  varve_test(lint-format lint 300 ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR}
    -P ${PROJECT_SOURCE_DIR}/cmake/format.cmake)
  set_tests_properties(lint-format PROPERTIES SKIP_REGULAR_EXPRESSION "format: skipped")
endif()

# ---- sanitizer builds -----------------------------------------------------------------------
if(VARVE_SUBBUILDS)
  foreach(preset asan tsan)
    varve_test(${preset} sanitizer 1800 ${CMAKE_COMMAND} -DPRESET=${preset} -DJOBS=${half}
      -DLLAMA=${VARVE_LLAMA} -DSOURCE=${PROJECT_SOURCE_DIR}
      -P ${PROJECT_SOURCE_DIR}/cmake/sanitize.cmake)
    set_tests_properties(${preset} PROPERTIES COST 1000 PROCESSORS ${half}
      FIXTURES_SETUP ${preset}-build)
  endforeach()
endif()

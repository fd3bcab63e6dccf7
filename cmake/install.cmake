# Libraries and the plug-in go into lib/, so that bin/varve finds them as ../lib in any prefix.

set(CMAKE_INSTALL_LIBDIR lib CACHE PATH "Folder for libraries, below the prefix")
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/varve)

file(GLOB public_headers CONFIGURE_DEPENDS include/varve/*.h)
if(NOT TARGET varve-op)
  list(FILTER public_headers EXCLUDE REGEX "/op\\.h$") # for ggml graphs, with libvarve-op
endif()
install(FILES ${public_headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/varve)
install(TARGETS varve EXPORT varve LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS varve_static ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET varve-op)
  install(TARGETS varve-op EXPORT varve LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(TARGETS varve-op-static ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
foreach(target ggml-varve varve-preload)
  if(TARGET ${target})
    install(TARGETS ${target} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  endif()
endforeach()
foreach(target varve-cli varve-run varve-plan varve-eval varve-verify varve-bench)
  if(TARGET ${target})
    install(TARGETS ${target} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endforeach()

install(EXPORT varve NAMESPACE varve:: FILE varveTargets.cmake DESTINATION ${package_dir})
configure_package_config_file(cmake/varveConfig.cmake.in ${CMAKE_BINARY_DIR}/varveConfig.cmake
  INSTALL_DESTINATION ${package_dir})
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(${CMAKE_BINARY_DIR}/varveConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/varveConfig.cmake ${CMAKE_BINARY_DIR}/varveConfigVersion.cmake
  DESTINATION ${package_dir})

set(pc_private "-lm -lpthread")
if(VARVE_OPENMP)
  string(APPEND pc_private " ${OpenMP_C_FLAGS}")
endif()
configure_file(cmake/varve.pc.in ${CMAKE_BINARY_DIR}/varve.pc @ONLY)
set(pc_files ${CMAKE_BINARY_DIR}/varve.pc)
if(TARGET varve-op)
  configure_file(cmake/varve-op.pc.in ${CMAKE_BINARY_DIR}/varve-op.pc @ONLY)
  list(APPEND pc_files ${CMAKE_BINARY_DIR}/varve-op.pc)
endif()
install(FILES ${pc_files} DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

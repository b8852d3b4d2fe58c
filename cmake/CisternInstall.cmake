# Headers, libraries, the command and what find_package(cistern) reads.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/cistern)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ ${PROJECT_BINARY_DIR}/generated/
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.hpp" PATTERN "*.h")

install(TARGETS cistern EXPORT cistern-core)
install(EXPORT cistern-core NAMESPACE cistern:: FILE cistern-core.cmake DESTINATION ${package_dir})

if(TARGET cistern_trace)
  install(TARGETS cistern_trace EXPORT cistern-trace)
  install(EXPORT cistern-trace NAMESPACE cistern:: FILE cistern-trace.cmake DESTINATION ${package_dir})
endif()
if(TARGET cistern_command)
  install(TARGETS cistern_command)
endif()
if(TARGET cistern_torch)
  install(TARGETS cistern_torch LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/cistern-config.cmake.in
  ${PROJECT_BINARY_DIR}/cistern-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/cistern-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/cistern-config.cmake
              ${PROJECT_BINARY_DIR}/cistern-config-version.cmake
        DESTINATION ${package_dir})

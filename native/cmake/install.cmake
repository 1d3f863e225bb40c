# `cmake --install`: the header, the libraries, and a package that find_package(molkv) finds, with
# the targets molkv::molkv (shared), molkv::molkv_core (static) and molkv::molkv_ort (to be loaded
# by ONNX Runtime).
include(CMakePackageConfigHelpers)

install(DIRECTORY include/molkv DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS molkv molkv_core molkv_ort EXPORT molkv-targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})

set(MOLKV_PACKAGE ${CMAKE_INSTALL_LIBDIR}/cmake/molkv)
install(EXPORT molkv-targets NAMESPACE molkv:: DESTINATION ${MOLKV_PACKAGE})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/molkv-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES cmake/molkv-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/molkv-config-version.cmake
  DESTINATION ${MOLKV_PACKAGE})

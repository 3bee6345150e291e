# cmake --install: headers below include/afm, libraries, and a package that find_package(afm CONFIG) finds.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(afm_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/afm)
install(TARGETS afm afm_model_library EXPORT afm-targets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development
        FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/afm COMPONENT development)
# The scorer is a package of its own, because it needs no LibTorch: find_package(afm CONFIG COMPONENTS serve).
install(TARGETS afm_serve afm_serve_shared EXPORT afm-serve-targets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development
        FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/afm COMPONENT development)
install(EXPORT afm-serve-targets NAMESPACE afm:: DESTINATION ${afm_package_dir} COMPONENT development)
install(EXPORT afm-targets NAMESPACE afm:: DESTINATION ${afm_package_dir} COMPONENT development)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/afm-config.cmake.in ${PROJECT_BINARY_DIR}/afm-config.cmake
                              INSTALL_DESTINATION ${afm_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/afm-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/afm-config.cmake ${PROJECT_BINARY_DIR}/afm-config-version.cmake
        DESTINATION ${afm_package_dir} COMPONENT development)

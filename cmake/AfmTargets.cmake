# Targets in the shape that libafm uses everywhere.

# torch/torch.h costs 20 s a file; precompiled once, every target reuses it.
file(WRITE ${PROJECT_BINARY_DIR}/afm_precompiled.cpp "")
add_library(afm_precompiled OBJECT ${PROJECT_BINARY_DIR}/afm_precompiled.cpp)
target_link_libraries(afm_precompiled PRIVATE afm_build_flags afm_torch afm_private_dependencies)
target_precompile_headers(afm_precompiled PRIVATE <torch/torch.h>)
set_target_properties(afm_precompiled PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden
                                                 VISIBILITY_INLINES_HIDDEN ON)
target_compile_options(afm_precompiled PRIVATE -fpch-preprocess)

# afm_compile_like_all(<target>): flags, include root and the precompiled header.
function(afm_compile_like_all target)
  target_link_libraries(${target} PRIVATE afm_build_flags afm_torch afm_private_dependencies)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${target} PRIVATE -fpch-preprocess)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden
                                             VISIBILITY_INLINES_HIDDEN ON)
  target_precompile_headers(${target} REUSE_FROM afm_precompiled)
endfunction()

# afm_room(<name> SOURCES ...): one room of the library, an object library that afm gathers. Tests link rooms alone.
function(afm_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES" ${ARGN})
  add_library(afm_${name} OBJECT ${ROOM_SOURCES})
  afm_compile_like_all(afm_${name})
endfunction()

# afm_room_test(<name> ROOMS ... SOURCES ...): one Catch2 executable per room, named <name>_tests.
function(afm_room_test name)
  cmake_parse_arguments(TEST "" "" "ROOMS;SOURCES" ${ARGN})
  add_executable(${name}_tests ${TEST_SOURCES})
  afm_compile_like_all(${name}_tests)
  list(TRANSFORM TEST_ROOMS PREPEND afm_)
  target_link_libraries(${name}_tests PRIVATE ${TEST_ROOMS} Catch2::Catch2WithMain)
  catch_discover_tests(${name}_tests TEST_PREFIX "${name}: " DISCOVERY_MODE PRE_TEST PROPERTIES TIMEOUT 600
                       SKIP_RETURN_CODE 4)
endfunction()

# Targets in the shape that libafm uses everywhere.

# Torch's headers cost 20 s a file; what libafm uses of them is precompiled once, and every target reuses it. torch/torch.h
# as a whole would double the cost of each file, through templates that every file instantiates anew.
file(WRITE ${PROJECT_BINARY_DIR}/afm_precompiled.cpp "")
add_library(afm_precompiled OBJECT ${PROJECT_BINARY_DIR}/afm_precompiled.cpp)
target_link_libraries(afm_precompiled PRIVATE afm_build_flags afm_torch afm_private_dependencies)
target_precompile_headers(afm_precompiled PRIVATE ${PROJECT_SOURCE_DIR}/cmake/precompiled.h)
set_target_properties(afm_precompiled PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden
                                                 VISIBILITY_INLINES_HIDDEN ON)
target_compile_options(afm_precompiled PRIVATE -fpch-preprocess)

# afm_compile_like_all(<target>): flags, include root and the precompiled header.
function(afm_compile_like_all target)
  target_link_libraries(${target} PRIVATE afm_build_flags afm_torch afm_private_dependencies)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
  # An executable would be compiled with -fPIE, for which the compiler refuses a header that was precompiled with -fPIC.
  target_compile_options(${target} PRIVATE -fpch-preprocess $<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:-fPIC>)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden
                                             VISIBILITY_INLINES_HIDDEN ON)
  target_precompile_headers(${target} REUSE_FROM afm_precompiled)
  # What every file instantiates anew of torch's templates costs more than the file itself: compile several as one.
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${AFM_UNITY} UNITY_BUILD_BATCH_SIZE 5)
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
  target_compile_options(${name}_tests PRIVATE $<$<CONFIG:Release>:-O1>) # compile time counts, speed does not
  if(AFM_CUDA AND "nn" IN_LIST TEST_ROOMS)
    list(APPEND TEST_ROOMS cuda)
  endif()
  list(TRANSFORM TEST_ROOMS PREPEND afm_)
  target_link_libraries(${name}_tests PRIVATE ${TEST_ROOMS} Catch2::Catch2WithMain)
  catch_discover_tests(${name}_tests TEST_PREFIX "${name}: " DISCOVERY_MODE PRE_TEST PROPERTIES TIMEOUT 600
                       SKIP_RETURN_CODE 4)
endfunction()

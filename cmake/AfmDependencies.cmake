# The libraries libafm stands on. Only afm_torch is public; Eigen, fmt, nlohmann-json and xxhash stay behind .cpp files.

# LibTorch comes from the Python that is named, or from .venv, or from CMAKE_PREFIX_PATH.
set(AFM_PYTHON_EXECUTABLE "" CACHE FILEPATH "Python whose torch is used (default: .venv, then python3)")
if(NOT AFM_PYTHON_EXECUTABLE)
  if(SKBUILD) # pip: the Python of the build environment
    set(AFM_PYTHON_EXECUTABLE ${Python_EXECUTABLE})
  elseif(EXISTS ${PROJECT_SOURCE_DIR}/.venv/bin/python)
    set(AFM_PYTHON_EXECUTABLE ${PROJECT_SOURCE_DIR}/.venv/bin/python)
  else()
    find_program(AFM_PYTHON3 NAMES python3 python)
    set(AFM_PYTHON_EXECUTABLE ${AFM_PYTHON3})
  endif()
endif()
if(NOT Torch_DIR AND AFM_PYTHON_EXECUTABLE)
  execute_process(COMMAND ${AFM_PYTHON_EXECUTABLE} -c "import torch; print(torch.utils.cmake_prefix_path)"
                  OUTPUT_VARIABLE afm_torch_prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  list(APPEND CMAKE_PREFIX_PATH ${afm_torch_prefix})
endif()
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON) # a project that adds this one as a subdirectory sees torch's targets
find_package(Torch 2.11 REQUIRED)
if(AFM_CUDA)
  if(NOT TARGET torch_cuda)
    message(FATAL_ERROR "AFM_CUDA needs a LibTorch with CUDA; ${Torch_DIR} has none")
  endif()
  find_package(CUDAToolkit REQUIRED)
  # CUTLASS is headers alone. Without it, or for other GPUs than Hopper's, hidden layers go through cuBLAS and passes of
  # our own.
  execute_process(COMMAND ${AFM_PYTHON_EXECUTABLE} -c "import importlib.util, pathlib
print(pathlib.Path(importlib.util.find_spec('cutlass_library').origin).parent / 'source' / 'include')"
                  OUTPUT_VARIABLE afm_cutlass OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  find_path(AFM_CUTLASS_INCLUDE cutlass/epilogue/fusion/sm90_visitor_store_tma_warpspecialized.hpp HINTS ${afm_cutlass}
            DOC "The include folder of CUTLASS 4 (pip install nvidia-cutlass)")
  set(AFM_CUTLASS FALSE)
  if(NOT "${TORCH_CUDA_ARCH_LIST};$ENV{TORCH_CUDA_ARCH_LIST}" MATCHES "9\\.0a")
    message(STATUS "TORCH_CUDA_ARCH_LIST does not name 9.0a: no CUTLASS")
  elseif(AFM_CUTLASS_INCLUDE)
    set(AFM_CUTLASS TRUE)
    message(STATUS "CUTLASS: ${AFM_CUTLASS_INCLUDE}")
  else()
    message(STATUS "CUTLASS is not there (pip install nvidia-cutlass==4.2.0.0, or -DAFM_CUTLASS_INCLUDE=): "
                   "hidden layers in bfloat16 are a tenth slower on Hopper GPUs")
  endif()
endif()
find_package(Eigen3 3.4 REQUIRED NO_MODULE)
find_package(fmt REQUIRED)
find_package(nlohmann_json 3.10 REQUIRED)
find_path(AFM_XXHASH_INCLUDE xxhash.h REQUIRED)

# What every translation unit needs; warnings included.
add_library(afm_build_flags INTERFACE)
target_compile_features(afm_build_flags INTERFACE cxx_std_20)
separate_arguments(afm_torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
target_compile_options(afm_build_flags INTERFACE ${afm_torch_flags} -Wall -Wextra -Wpedantic -Wshadow
                                                 $<$<BOOL:${AFM_WERROR}>:-Werror> $<$<BOOL:${AFM_NATIVE}>:-march=native>)
if(AFM_SANITIZE)
  target_compile_options(afm_build_flags INTERFACE -fsanitize=${AFM_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(afm_build_flags INTERFACE -fsanitize=${AFM_SANITIZE})
endif()

# Torch's headers are third-party: no warnings from them.
add_library(afm_torch INTERFACE)
target_include_directories(afm_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
target_link_libraries(afm_torch INTERFACE torch)

add_library(afm_private_dependencies INTERFACE)
target_include_directories(afm_private_dependencies SYSTEM INTERFACE ${AFM_XXHASH_INCLUDE})
target_link_libraries(afm_private_dependencies INTERFACE Eigen3::Eigen nlohmann_json::nlohmann_json)
# torch ships newer fmt headers that win over the system's, so fmt is used header-only.
target_compile_definitions(afm_private_dependencies INTERFACE FMT_HEADER_ONLY=1)
get_target_property(afm_fmt_include fmt::fmt INTERFACE_INCLUDE_DIRECTORIES)
if(afm_fmt_include)
  target_include_directories(afm_private_dependencies SYSTEM INTERFACE ${afm_fmt_include})
endif()

find_program(AFM_CCACHE ccache)
if(AFM_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Depend mode spares the preprocessor run of a file that is not in the cache.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_DEPEND=1
                                  CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime ${AFM_CCACHE})
endif()

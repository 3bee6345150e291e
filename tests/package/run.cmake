# cmake -DBUILD=<build of libafm> -DWORK=<scratch> -DTORCH=<Torch_DIR> -DCOMPILER=<c++> -P run.cmake
# Installs libafm, builds the outside project against the installation, runs it; then configures it on the sources.
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(code)
    message(FATAL_ERROR "${ARGN}\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE ${WORK})
set(common -G Ninja -DTorch_DIR=${TORCH} -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_BUILD_TYPE=Release)
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix --component development)
run(${CMAKE_COMMAND} ${common} -S ${CMAKE_CURRENT_LIST_DIR} -B ${WORK}/installed -DCMAKE_PREFIX_PATH=${WORK}/prefix)
run(${CMAKE_COMMAND} --build ${WORK}/installed)
run(${WORK}/installed/ranker)
message("${output}")
run(${WORK}/installed/server)
run(${CMAKE_COMMAND} -G Ninja -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_BUILD_TYPE=Release -DRANKER_SERVER_ONLY=ON
    -DCMAKE_DISABLE_FIND_PACKAGE_Torch=ON -S ${CMAKE_CURRENT_LIST_DIR} -B ${WORK}/server
    -DCMAKE_PREFIX_PATH=${WORK}/prefix)
run(${CMAKE_COMMAND} --build ${WORK}/server)
run(${WORK}/server/server)
run(${CMAKE_COMMAND} ${common} -S ${CMAKE_CURRENT_LIST_DIR} -B ${WORK}/subdirectory -DRANKER_ADD_SUBDIRECTORY=ON)
run(${CMAKE_COMMAND} --build ${WORK}/subdirectory -- -n ranker)

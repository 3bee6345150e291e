# cmake -DLIBRARY=libafm_serve.so -DSTRIP=strip -DLIMIT=300000 -P library_size.cmake: fails when the stripped library has
# more bytes.
set(stripped ${CMAKE_CURRENT_BINARY_DIR}/stripped_library)
execute_process(COMMAND ${STRIP} -o ${stripped} ${LIBRARY} COMMAND_ERROR_IS_FATAL ANY)
file(SIZE ${stripped} bytes)
file(REMOVE ${stripped})
if(bytes GREATER LIMIT)
  message(FATAL_ERROR "the stripped library has ${bytes} bytes, more than ${LIMIT}")
endif()

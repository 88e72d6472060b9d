# The plain luajit is not sanitized: the sanitizer's runtime has to be loaded ahead of everything.
# Leaves its file name in <build>/preload for the launcher, test/luajit.

if(ASIO_SANITIZE MATCHES "thread")
    set(runtime tsan)
elseif(ASIO_SANITIZE MATCHES "address")
    set(runtime asan)
else()
    set(runtime ubsan)
endif()

if(CMAKE_C_COMPILER_ID MATCHES "Clang")
    if(runtime STREQUAL "ubsan")
        set(runtime ubsan_standalone)
    endif()
    set(runtime libclang_rt.${runtime}-${CMAKE_SYSTEM_PROCESSOR}.so)
else()
    set(runtime lib${runtime}.so)
endif()

execute_process(COMMAND ${CMAKE_C_COMPILER} -print-file-name=${runtime}
    OUTPUT_VARIABLE file OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT IS_ABSOLUTE "${file}")
    message(FATAL_ERROR "${CMAKE_C_COMPILER} has no ${runtime}")
endif()
get_filename_component(file ${file} REALPATH)
if(CMAKE_C_COMPILER_ID MATCHES "Clang")
    get_filename_component(directory ${file} DIRECTORY)
    target_link_options(asio_flags INTERFACE -shared-libsan -Wl,-rpath,${directory})
endif()
file(WRITE ${CMAKE_BINARY_DIR}/preload "${file}\n")

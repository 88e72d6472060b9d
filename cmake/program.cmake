# The program `asio` (src/cli): <build>/bin/asio. It loads asio.so as any program does, or with ASIO_STANDALONE has
# all inside; then there is a luajit like that as well, for the tests, and no asio.so.

include(cmake/embed_program.cmake)
file(GLOB cli_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/cli/*.c)
if(PkgConfig_FOUND)
    pkg_check_modules(EDIT IMPORTED_TARGET libedit)
endif()
if(EDIT_FOUND)
    list(FILTER cli_sources EXCLUDE REGEX "/no_editor\\.c$")
else()
    list(FILTER cli_sources EXCLUDE REGEX "/editor\\.c$")
endif()

add_executable(asio_program ${cli_sources} ${CMAKE_BINARY_DIR}/cli_lua.c)
set_target_properties(asio_program PROPERTIES OUTPUT_NAME asio RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
target_compile_definitions(asio_program PRIVATE CLI_VERSION="${PROJECT_VERSION}")
target_include_directories(asio_program SYSTEM PRIVATE ${luajit_include})
target_link_libraries(asio_program PRIVATE asio_flags)
if(EDIT_FOUND)
    target_link_libraries(asio_program PRIVATE PkgConfig::EDIT)
endif()
if(NOT ASIO_STANDALONE)
    target_link_libraries(asio_program PRIVATE ${luajit})
    install(TARGETS asio_program RUNTIME DESTINATION bin)
endif()

# Linked twice: of libc and LuaJIT, ffi.C knows what the first one turned out to contain. The programs of the tests
# have all of it.
function(asio_standalone target)
    target_sources(${target} PRIVATE ${CMAKE_SOURCE_DIR}/platform/standalone.c $<TARGET_OBJECTS:asio_core>
        $<TARGET_OBJECTS:asio_worker_core> ${ARGN})
    target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/include)
    target_include_directories(${target} SYSTEM PRIVATE ${luajit_include})
    target_link_options(${target} PRIVATE -Wl,--wrap=luaL_openlibs)
    target_link_libraries(${target} PRIVATE asio_flags)
    if(cares)
        target_sources(${target} PRIVATE $<TARGET_OBJECTS:asio_ares_core>)
        target_compile_definitions(${target} PRIVATE STANDALONE_ARES)
        target_link_libraries(${target} PRIVATE ${cares})
    endif()
    if(TARGET asio_http_core)
        target_sources(${target} PRIVATE $<TARGET_OBJECTS:asio_http_core> $<TARGET_OBJECTS:asio_llhttp>)
        target_compile_definitions(${target} PRIVATE STANDALONE_HTTP)
        target_link_libraries(${target} PRIVATE ${zlib})
    endif()
    target_link_libraries(${target} PRIVATE ${libuv} ${luajit} ${CMAKE_DL_LIBS} Threads::Threads m)
endfunction()

function(asio_standalone_symbols output)
    set(program "")
    if(ARGN)
        set(program -p ${ARGN})
    endif()
    add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/${output}
        COMMAND sh ${CMAKE_SOURCE_DIR}/platform/symbols.sh ${ASIO_STANDALONE_LIBRARIES} ${program} > ${output}.tmp
        COMMAND ${CMAKE_COMMAND} -E rename ${output}.tmp ${output}
        DEPENDS ${CMAKE_SOURCE_DIR}/platform/symbols.sh ${ARGN}
        WORKING_DIRECTORY ${CMAKE_BINARY_DIR} VERBATIM)
    # Declares functions as bytes, which link-time optimization would notice.
    set_source_files_properties(${CMAKE_BINARY_DIR}/${output} PROPERTIES COMPILE_FLAGS "-w -fno-lto")
endfunction()

if(ASIO_STANDALONE)
    find_package(Threads REQUIRED)
    set(no_symbols ${CMAKE_BINARY_DIR}/no_symbols.c)
    asio_standalone_symbols(no_symbols.c /dev/null)
    asio_standalone_symbols(symbols.c ${CMAKE_BINARY_DIR}/first/asio)

    get_target_property(program_sources asio_program SOURCES)
    add_executable(asio_first ${program_sources})
    set_target_properties(asio_first PROPERTIES OUTPUT_NAME asio RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/first)
    target_compile_definitions(asio_first PRIVATE CLI_VERSION="${PROJECT_VERSION}")
    if(EDIT_FOUND)
        target_link_libraries(asio_first PRIVATE PkgConfig::EDIT)
    endif()
    asio_standalone(asio_first ${no_symbols})
    asio_standalone(asio_program ${CMAKE_BINARY_DIR}/symbols.c)
    add_dependencies(asio_program asio_first)

    if(NOT ASIO_TESTS)
        return()
    endif()
    asio_standalone_symbols(all_symbols.c)
    add_executable(asio_luajit ${ASIO_STANDALONE_LUAJIT})
    set_target_properties(asio_luajit PROPERTIES OUTPUT_NAME luajit LINKER_LANGUAGE C
        RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
    asio_standalone(asio_luajit ${CMAKE_BINARY_DIR}/all_symbols.c)
endif()

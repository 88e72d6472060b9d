# For programs that link LuaAsio: a static library with the module and its plugins, the header, and the files by which
# pkg-config and find_package(LuaAsio) find both. The linker takes a plugin only if the program names it.

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(embedded $<TARGET_OBJECTS:asio_core> $<TARGET_OBJECTS:asio_worker_core>)
if(TARGET asio_ares_core)
    list(APPEND embedded $<TARGET_OBJECTS:asio_ares_core>)
endif()
if(TARGET asio_http_core)
    list(APPEND embedded $<TARGET_OBJECTS:asio_http_core> $<TARGET_OBJECTS:asio_llhttp>)
endif()
add_library(asio_static STATIC ${embedded})
set_target_properties(asio_static PROPERTIES OUTPUT_NAME lua-asio EXPORT_NAME asio LINKER_LANGUAGE C)
target_include_directories(asio_static INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

# The compiler's intermediate code would bind the library to one version of one compiler. The objects have machine
# code as well, unless all is built by link-time optimization.
if(CMAKE_INTERPROCEDURAL_OPTIMIZATION)
    message(FATAL_ERROR "ASIO_STATIC and CMAKE_INTERPROCEDURAL_OPTIMIZATION exclude each other")
endif()
if(ASIO_HAVE_LTO AND CMAKE_OBJCOPY)
    add_custom_command(TARGET asio_static POST_BUILD
        COMMAND ${CMAKE_OBJCOPY} --remove-section=.gnu.lto_* --remove-section=.gnu.debuglto_*
                --strip-symbol=__gnu_lto_v1 "$<$<CONFIG:Release>:--strip-debug>" $<TARGET_FILE:asio_static>
        COMMAND_EXPAND_LISTS VERBATIM)
endif()

set(dir ${CMAKE_INSTALL_LIBDIR}/cmake/LuaAsio)
install(TARGETS asio_static EXPORT LuaAsio ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT LuaAsio NAMESPACE LuaAsio:: FILE LuaAsioTargets.cmake DESTINATION ${dir})
install(FILES include/lua-asio.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

configure_package_config_file(packaging/LuaAsioConfig.cmake.in ${CMAKE_BINARY_DIR}/LuaAsioConfig.cmake
    INSTALL_DESTINATION ${dir} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/LuaAsioConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/LuaAsioConfig.cmake ${CMAKE_BINARY_DIR}/LuaAsioConfigVersion.cmake
    DESTINATION ${dir})

# The prefix is that of `cmake --install`, which may be another one than at the time of configuring: found relative to
# the file.
string(REGEX REPLACE "[^/]+" ".." up ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
configure_file(packaging/lua-asio.pc.in ${CMAKE_BINARY_DIR}/lua-asio.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/lua-asio.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

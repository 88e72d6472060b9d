@echo off
rem Builds LuaAsio on Windows: asio.dll in build\release. Needs CMake, a C compiler, libuv 1.43 or
rem later and LuaJIT 2.1. With vcpkg:
rem     vcpkg install libuv luajit pkgconf
rem     set VCPKG_ROOT=C:\path\to\vcpkg
rem With libraries of your own, set these instead, as far as CMake does not find them:
rem     set CMAKE_PREFIX_PATH=C:\path\to\libuv
rem     set LUAJIT_INCLUDE_DIR=C:\path\to\luajit\src
rem     set LUAJIT_LIBRARY=C:\path\to\luajit\src\lua51.lib
setlocal
cd /d "%~dp0"

where cmake >nul 2>nul
if errorlevel 1 (
    echo build.bat: cmake is not on the PATH 1>&2
    exit /b 1
)

set OPTIONS=-DCMAKE_BUILD_TYPE=Release -DASIO_TESTS=OFF
if defined VCPKG_ROOT set OPTIONS=%OPTIONS% "-DCMAKE_TOOLCHAIN_FILE=%VCPKG_ROOT%\scripts\buildsystems\vcpkg.cmake"
if defined LUAJIT_INCLUDE_DIR set OPTIONS=%OPTIONS% "-DLUAJIT_INCLUDE_DIR=%LUAJIT_INCLUDE_DIR%"
if defined LUAJIT_LIBRARY set OPTIONS=%OPTIONS% "-DLUAJIT_LIBRARY=%LUAJIT_LIBRARY%"

cmake -S . -B build\release %OPTIONS%
if errorlevel 1 (
    echo build.bat: is libuv or LuaJIT missing? The head of this file names the variables to set. 1>&2
    exit /b 1
)
cmake --build build\release --config Release

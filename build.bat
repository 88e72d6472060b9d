@echo off
rem Builds LuaAsio on Windows: asio.dll in build\windows. Needs CMake 3.20 or later, Ninja and a C compiler on the PATH:
rem a developer prompt of Visual Studio has all three, and so has MinGW-w64 with its packages of CMake and Ninja.
rem With vcpkg, which fetches what vcpkg.json names:
rem     set VCPKG_ROOT=C:\path\to\vcpkg
rem With libraries of your own (libuv 1.43 or later, LuaJIT 2.1), set these instead, as far as CMake does not find them:
rem     set CMAKE_PREFIX_PATH=C:\path\to\libuv
rem     set LUAJIT_INCLUDE_DIR=C:\path\to\luajit\src
rem     set LUAJIT_LIBRARY=C:\path\to\luajit\src\lua51.lib
rem "build.bat example" then runs examples\ping_pong.lua, by test\luajit.bat.
setlocal
cd /d "%~dp0"

where cmake >nul 2>nul
if errorlevel 1 (
    echo build.bat: cmake is not on the PATH 1>&2
    exit /b 1
)

set PRESET=windows
if defined VCPKG_ROOT set PRESET=windows-vcpkg
set OPTIONS=
if defined LUAJIT_INCLUDE_DIR set OPTIONS=%OPTIONS% "-DLUAJIT_INCLUDE_DIR=%LUAJIT_INCLUDE_DIR%"
if defined LUAJIT_LIBRARY set OPTIONS=%OPTIONS% "-DLUAJIT_LIBRARY=%LUAJIT_LIBRARY%"

cmake --preset %PRESET% %OPTIONS%
if errorlevel 1 (
    echo build.bat: is libuv or LuaJIT missing? The head of this file names the variables to set. 1>&2
    exit /b 1
)
cmake --build build\windows
if errorlevel 1 exit /b 1
if "%~1"=="example" call test\luajit.bat examples\ping_pong.lua

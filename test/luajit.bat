@echo off
rem Runs luajit with the asio.dll that was built here, whatever the working directory:
rem     test\luajit.bat script.lua ...
rem Takes the build in %ASIO_BUILD%, else build\windows; luajit is %LUAJIT%, or vcpkg's, or on the PATH.
setlocal
set ROOT=%~dp0..
if not defined ASIO_BUILD set ASIO_BUILD=%ROOT%\build\windows
if not exist "%ASIO_BUILD%\asio.dll" (
    echo luajit.bat: no asio.dll in %ASIO_BUILD%: run build.bat first 1>&2
    exit /b 1
)
set VCPKG=%ASIO_BUILD%\vcpkg_installed\x64-windows
set PATH=%VCPKG%\tools\luajit;%VCPKG%\bin;%PATH%
if not defined LUAJIT set LUAJIT=luajit
set LUA_CPATH=%ASIO_BUILD%\?.dll;%LUA_CPATH%;
set LUA_PATH=%LUA_PATH%;;%ROOT%\test\support\?.lua
"%LUAJIT%" %*

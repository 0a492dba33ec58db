# What `make install` installs: the program, both libraries, headers, pkg-config's file, and what the program prints of
# itself (manual page, completions).
set(CMAKE_INSTALL_LIBDIR lib CACHE STRING "Folder of libraries below the prefix")
include(GNUInstallDirs)

if(CMAKE_INSTALL_LIBDIR MATCHES "^/")
  message(FATAL_ERROR "CMAKE_INSTALL_LIBDIR is a folder below the prefix, not ${CMAKE_INSTALL_LIBDIR}")
endif()
# The file finds its prefix by its own place, so that a folder that is moved, or DESTDIR, is right by itself.
string(REGEX REPLACE "[^/]+" ".." PI2_UP_TO_PREFIX ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
set(PI2_REQUIRES_PRIVATE "libpcre2-8 libutf8proc libxxhash jansson")
if(URING_FOUND)
  string(APPEND PI2_REQUIRES_PRIVATE " liburing")
endif()
configure_file(${PROJECT_SOURCE_DIR}/cmake/powerinfer2.pc.in ${CMAKE_BINARY_DIR}/powerinfer2.pc @ONLY)

set(PI2_MANUAL_FOLDER ${CMAKE_BINARY_DIR}/manual)
file(MAKE_DIRECTORY ${PI2_MANUAL_FOLDER})
add_custom_command(OUTPUT ${PI2_MANUAL_FOLDER}/powerinfer2.1
  COMMAND powerinfer2 manual > powerinfer2.1
  COMMAND powerinfer2 manual --completion bash > powerinfer2.bash
  COMMAND powerinfer2 manual --completion zsh > _powerinfer2
  COMMAND powerinfer2 manual --completion fish > powerinfer2.fish
  DEPENDS powerinfer2 WORKING_DIRECTORY ${PI2_MANUAL_FOLDER} VERBATIM)
add_custom_target(powerinfer2_manual ALL DEPENDS ${PI2_MANUAL_FOLDER}/powerinfer2.1)

install(TARGETS powerinfer2 powerinfer2_shared)
install(FILES $<TARGET_FILE:powerinfer2_core> RENAME libpowerinfer2.a DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/powerinfer2 DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${CMAKE_BINARY_DIR}/powerinfer2.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ${PI2_MANUAL_FOLDER}/powerinfer2.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${PI2_MANUAL_FOLDER}/powerinfer2.bash RENAME powerinfer2
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${PI2_MANUAL_FOLDER}/_powerinfer2 DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${PI2_MANUAL_FOLDER}/powerinfer2.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})

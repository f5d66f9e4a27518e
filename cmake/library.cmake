# The library for C and C++, shared and static, and what finds it: bpttConfig.cmake and bptt.pc. In
# a wheel all of it lies within the package.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

if(SKBUILD)
  set(BPTT_PREFIX bptt/)
  set(BPTT_LIBDIR lib)
  set(BPTT_INCLUDEDIR include)
else()
  set(BPTT_PREFIX "")
  set(BPTT_LIBDIR ${CMAKE_INSTALL_LIBDIR})
  set(BPTT_INCLUDEDIR ${CMAKE_INSTALL_INCLUDEDIR})
endif()

add_library(bptt SHARED csrc/c/bptt.cpp)
target_link_libraries(bptt PRIVATE bptt_engine)
set_target_properties(bptt PROPERTIES EXPORT_NAME bptt)
if(NOT SKBUILD)  # which has no symbolic links in its archive
  set_target_properties(bptt PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION 0)
endif()
if(APPLE)
  target_link_options(bptt PRIVATE "-Wl,-exported_symbol,_bptt_*")
else()
  target_link_options(bptt PRIVATE
    "-Wl,--version-script=${PROJECT_SOURCE_DIR}/csrc/c/exported.map" -Wl,--gc-sections)
  set_target_properties(bptt PROPERTIES LINK_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/c/exported.map)
endif()

add_library(bptt_static STATIC csrc/c/bptt.cpp $<TARGET_OBJECTS:bptt_engine>)
target_link_libraries(bptt_static PUBLIC Threads::Threads ${CMAKE_DL_LIBS})
target_include_directories(bptt_static PRIVATE csrc)
set_target_properties(bptt_static PROPERTIES OUTPUT_NAME bptt EXPORT_NAME static)

foreach(library bptt bptt_static)
  target_compile_definitions(${library} PRIVATE BPTT_VERSION="${PROJECT_VERSION}")
  target_include_directories(${library} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${BPTT_PREFIX}${BPTT_INCLUDEDIR}>)
  target_compile_options(${library} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
    -ffp-contract=off -fno-math-errno)
endforeach()

set(config_dir ${BPTT_PREFIX}${BPTT_LIBDIR}/cmake/bptt)
set(libraries bptt)
if(NOT SKBUILD)
  list(APPEND libraries bptt_static)
endif()
install(TARGETS ${libraries} EXPORT bpttTargets
  LIBRARY DESTINATION ${BPTT_PREFIX}${BPTT_LIBDIR} ARCHIVE DESTINATION ${BPTT_PREFIX}${BPTT_LIBDIR})
install(EXPORT bpttTargets NAMESPACE bptt:: DESTINATION ${config_dir})
install(DIRECTORY include/bptt DESTINATION ${BPTT_PREFIX}${BPTT_INCLUDEDIR})

configure_package_config_file(cmake/bpttConfig.cmake.in bpttConfig.cmake
  INSTALL_DESTINATION ${config_dir})
write_basic_package_version_file(bpttConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/bpttConfig.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/bpttConfigVersion.cmake DESTINATION ${config_dir})
file(RELATIVE_PATH BPTT_INCLUDE_FROM_PC "/${BPTT_LIBDIR}/pkgconfig" "/${BPTT_INCLUDEDIR}")
configure_file(cmake/bptt.pc.in bptt.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/bptt.pc
  DESTINATION ${BPTT_PREFIX}${BPTT_LIBDIR}/pkgconfig)

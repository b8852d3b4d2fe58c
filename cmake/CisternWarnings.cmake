# cistern_add_warnings(TARGET): the warnings the project is written under; errors with CISTERN_WERROR.
function(cistern_add_warnings target)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
    return()
  endif()
  target_compile_options(${target} PRIVATE
    -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wnon-virtual-dtor
    -Wold-style-cast -Woverloaded-virtual -Wcast-align -Wdouble-promotion -Wformat=2
    -Wnull-dereference -Wunused -Wimplicit-fallthrough -Wextra-semi)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE -Wduplicated-cond -Wlogical-op)
    if(CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
      # GCC 12 takes the concatenation of std::string for overlapping copies (GCC bug 105651).
      target_compile_options(${target} PRIVATE -Wno-restrict)
    endif()
  endif()
  get_target_property(is_unity ${target} UNITY_BUILD)
  if(is_unity AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # To GCC every source of a unity build is a header, whose classes should hold nothing local to it.
    target_compile_options(${target} PRIVATE -Wno-subobject-linkage)
  endif()
  if(CISTERN_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
endfunction()

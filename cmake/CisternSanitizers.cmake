# CISTERN_SANITIZE and CISTERN_FUZZ hold for everything that is built here, the libraries included. A finding ends the
# program.
if(CISTERN_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "CISTERN_FUZZ needs Clang: libFuzzer is part of it.")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
if(CISTERN_SANITIZE)
  add_compile_options(-fsanitize=${CISTERN_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${CISTERN_SANITIZE})
endif()

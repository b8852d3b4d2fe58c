# The tests that need a GPU, under the label gpu: `ctest -L gpu`. Without one they are skipped, and say why.
function(cistern_label_gpu program)
  set(device_filter "*Cuda*OnGpu.*")
  set(pools_filter "OnGpu/EveryPool.*")
  # The end of what GoogleTest prints where no test passed and none failed.
  set(all_skipped "PASSED  . 0 tests\\.\n(.  SKIPPED .[^\n]*\n)+$")
  foreach(part device pools)
    add_test(NAME gpu.${part} COMMAND ${program} --gtest_filter=${${part}_filter})
    set_tests_properties(gpu.${part} PROPERTIES LABELS gpu TIMEOUT 300 RUN_SERIAL ON
      SKIP_REGULAR_EXPRESSION "${all_skipped}")
  endforeach()
endfunction()

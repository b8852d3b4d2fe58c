// What has arrived at a pool's upstream after that had refused, and before the pool looked for it.
#pragma once

#include <cstddef>
#include <optional>
#include <thread>
#include <utility>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "support/ledger.hpp"
#include "support/spy.hpp"

namespace cistern::testing {

/// `pool` stands on `spy` and has nothing. A request of so many bytes is not for the idle block.
template <class Pool>
void expect_nothing_missed(Spy& spy, Pool& pool, std::size_t bytes) {
  using namespace literals;
  pool.deallocate(pool.allocate(1_MiB));
  bool is_refused = false;
  spy.before_request = [&](const Request&) -> std::optional<Errc> {
    if (std::exchange(is_refused, true)) return std::nullopt;
    std::thread([&] { pool.trim(); }).join();
    return Errc::out_of_memory;
  };
  const Expected<Block> block = pool.try_allocate({.bytes = bytes});
  ASSERT_TRUE(block);
  EXPECT_TRUE(is_refused);
  pool.deallocate(*block);
  expect_all_accounted_for(pool);
}

}  // namespace cistern::testing

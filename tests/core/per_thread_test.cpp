// What each thread keeps of an object: found by that thread alone, given back when it ends, gone
// with the object.
#include "cistern/core/per_thread.hpp"

#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace cistern {
namespace {

struct EndedItems {
  std::vector<void*> items;

  static void note(void* context, void* item) noexcept {
    static_cast<EndedItems*>(context)->items.push_back(item);
  }
};

TEST(PerThread, EachThreadHasItsOwnItem) {
  EndedItems ended;
  PerThread per_thread(&EndedItems::note, &ended);
  EXPECT_EQ(per_thread.get(), nullptr);
  int mine = 0;
  ASSERT_TRUE(per_thread.set(&mine));
  int others = 0;
  std::thread([&] {
    EXPECT_EQ(per_thread.get(), nullptr);
    EXPECT_TRUE(per_thread.set(&others));
    EXPECT_EQ(per_thread.get(), &others);
  }).join();
  EXPECT_EQ(per_thread.get(), &mine);
  EXPECT_EQ(ended.items, std::vector<void*>{&others});
}

TEST(PerThread, APlaceThatIsUsedAgainHasNoItemOfTheFormerObject) {
  EndedItems ended;
  int item = 0;
  auto former = std::make_unique<PerThread>(&EndedItems::note, &ended);
  ASSERT_TRUE(former->set(&item));
  former.reset();
  const PerThread next(&EndedItems::note, &ended);
  EXPECT_EQ(next.get(), nullptr);
}

TEST(PerThread, AThreadThatOutlivesTheObjectGivesNothingBack) {
  EndedItems ended;
  int item = 0;
  std::thread([&] {
    const auto per_thread = std::make_unique<PerThread>(&EndedItems::note, &ended);
    EXPECT_TRUE(per_thread->set(&item));
  }).join();
  EXPECT_TRUE(ended.items.empty());
}

TEST(PerThread, ThereMayBeManyObjects) {
  EndedItems ended;
  std::vector<std::unique_ptr<PerThread>> objects;
  std::vector<int> items(100);
  for (int& item : items) {
    objects.push_back(std::make_unique<PerThread>(&EndedItems::note, &ended));
    ASSERT_TRUE(objects.back()->set(&item));
  }
  for (std::size_t i = 0; i < objects.size(); ++i)
    EXPECT_EQ(objects[i]->get(), &items[i]);
}

/// Of a thread: asks for an item once the thread's items have been given back.
struct AsksLate {
  explicit AsksLate(PerThread& asked) : per_thread(asked) {}
  AsksLate(const AsksLate&) = delete;
  AsksLate& operator=(const AsksLate&) = delete;
  AsksLate(AsksLate&&) = delete;
  AsksLate& operator=(AsksLate&&) = delete;
  ~AsksLate() {
    int item = 0;
    EXPECT_EQ(per_thread.get(), nullptr);
    EXPECT_FALSE(per_thread.set(&item));
  }
  PerThread& per_thread;
};

TEST(PerThread, AThreadThatEndsGetsNoItem) {
  EndedItems ended;
  PerThread per_thread(&EndedItems::note, &ended);
  int item = 0;
  std::thread([&] {
    static thread_local const AsksLate late(per_thread);  // destroyed after what is made below
    EXPECT_TRUE(per_thread.set(&item));
  }).join();
  EXPECT_EQ(ended.items.size(), 1U);
}

}  // namespace
}  // namespace cistern
